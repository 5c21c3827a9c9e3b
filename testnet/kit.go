package testnet

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"

	"github.com/dcnode/dcnode/scripts"
	"github.com/dcnode/dcnode/testnet/guest"
)

// Kit is what a real move needs besides dcnode: a QEMU that can migrate and a
// guest, as paths in the cache.
type Kit struct {
	QEMU    string // qemu-system-x86_64
	QEMUImg string // qemu-img
	guest.Guest
}

// MakeKit makes the kit or finds the one made before. dcnode is the path of the
// program, beside which dcnode-guest is looked for unless workload names it;
// messages go to out. Errors name the cause and the remedy.
func MakeKit(ctx context.Context, dcnode, workload string, out io.Writer) (Kit, error) {
	log := slog.New(words{out})
	bin, err := scripts.QEMU(ctx, log)
	if err != nil {
		return Kit{}, err
	}
	if workload == "" {
		workload = filepath.Join(filepath.Dir(dcnode), "dcnode-guest")
	}
	g, err := guest.Prepare(ctx, guest.Options{Workload: workload, Log: log})
	if err != nil {
		return Kit{}, err
	}
	return Kit{QEMU: filepath.Join(bin, "qemu-system-x86_64"), QEMUImg: filepath.Join(bin, "qemu-img"), Guest: g}, nil
}

// words is a log for people: the message alone.
type words struct{ w io.Writer }

func (words) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelInfo }

func (h words) Handle(_ context.Context, r slog.Record) error {
	_, err := fmt.Fprintln(h.w, r.Message)
	return err
}

func (h words) WithAttrs([]slog.Attr) slog.Handler { return h }
func (h words) WithGroup(string) slog.Handler      { return h }
