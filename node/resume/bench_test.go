package resume

import (
	"io"
	"net"
	"testing"
)

type socket struct{ net.Conn }

func (s socket) Reset() error { return s.Close() }

// BenchmarkTransfer carries frames of 120 KB over loopback: as they are, and by a link.
func BenchmarkTransfer(b *testing.B) {
	for _, how := range []string{"plain", "link"} {
		b.Run(how, func(b *testing.B) {
			listener, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				b.Fatal(err)
			}
			defer listener.Close()
			near, err := net.Dial("tcp", listener.Addr().String())
			if err != nil {
				b.Fatal(err)
			}
			far, err := listener.Accept()
			if err != nil {
				b.Fatal(err)
			}
			var w, r io.ReadWriteCloser = near, far
			if how == "link" {
				here, there := New(socket{near}, Config{}), New(socket{far}, Config{})
				go func() { _, _ = here.Read(make([]byte, 1)) }() // acknowledgements
				w, r = here, there
			}
			frame := make([]byte, 120<<10)
			b.SetBytes(int64(len(frame)))
			read := make(chan error)
			b.ResetTimer()
			go func() {
				_, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, io.LimitReader(r, int64(b.N*len(frame))), make([]byte, 64<<10))
				read <- err
			}()
			for range b.N {
				if _, err := w.Write(frame); err != nil {
					b.Fatal(err)
				}
			}
			if err := <-read; err != nil {
				b.Fatal(err)
			}
			b.StopTimer()
			_ = w.Close()
			_ = r.Close()
		})
	}
}
