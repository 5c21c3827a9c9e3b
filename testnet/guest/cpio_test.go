package guest

import (
	"bytes"
	"strconv"
	"strings"
	"testing"
)

func TestArchiveHoldsWhatWasAdded(t *testing.T) {
	var b bytes.Buffer
	c := &cpio{w: &b}
	c.add("bin", modeDir, nil)
	c.add("bin/a", modeProg, []byte("hello"))
	c.add("empty", modeFile, nil)
	if err := c.close(); err != nil {
		t.Fatal(err)
	}
	var got []string
	rest := b.String()
	for rest != "" { // as the kernel reads it: fixed fields, name, padding, content, padding
		if len(rest) < 110 || rest[:6] != "070701" {
			t.Fatalf("no header at %d", b.Len()-len(rest))
		}
		field := func(i int) int {
			n, err := strconv.ParseUint(rest[6+8*i:14+8*i], 16, 32)
			if err != nil {
				t.Fatal(err)
			}
			return int(n)
		}
		mode, size, name := field(1), field(6), field(11)
		begin := (110 + name + 3) &^ 3
		end := (begin + size + 3) &^ 3
		got = append(got, rest[110:110+name-1]+" "+strconv.FormatInt(int64(mode), 8)+" "+rest[begin:begin+size])
		rest = rest[end:]
	}
	want := "bin 40755 |bin/a 100755 hello|empty 100644 |TRAILER!!! 0 "
	if have := strings.Join(got, "|"); have != want {
		t.Errorf("got %q", have)
	}
}
