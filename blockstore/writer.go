package blockstore

import (
	"context"

	blocks "github.com/ipfs/go-block-format"
)

// writer stores blocks in batches: as many as wait while one batch is synced.
type writer struct {
	in  chan blocks.Block
	out chan stored
}

type stored struct {
	blocks []blocks.Block
	err    error
}

func (p *pull) startWriter() *writer {
	w := &writer{in: make(chan blocks.Block, 64), out: make(chan stored)}
	p.tasks.Go(func() {
		defer close(w.out)
		for b := range w.in {
			batch := []blocks.Block{b}
			for more := true; more && len(batch) < cap(w.in); {
				select {
				case b, ok := <-w.in:
					if more = ok; ok {
						batch = append(batch, b)
					}
				default:
					more = false
				}
			}
			// What arrived is kept even when the pull is being cancelled.
			err := p.store.local.PutMany(context.WithoutCancel(p.ctx), batch)
			if err == nil {
				p.x.stored(p.ctx, batch)
			}
			w.out <- stored{batch, err}
		}
	})
	return w
}
