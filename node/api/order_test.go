package api

import (
	"context"
	"errors"
	"slices"
	"testing"
)

// watched is a node whose order a test makes up.
type watched struct {
	backend
	watch func(ctx context.Context, from uint64, tell func([]Ordered) error) error
}

func (w *watched) Watch(ctx context.Context, from uint64, tell func([]Ordered) error) error {
	return w.watch(ctx, from, tell)
}

func TestWatchCarriesTheOrderAndThenTheCause(t *testing.T) {
	var asked []uint64
	w := &watched{watch: func(_ context.Context, from uint64, tell func([]Ordered) error) error {
		asked = append(asked, from)
		if err := tell([]Ordered{{Index: 7, Tx: []string{"a"}}, {Index: 8}}); err != nil {
			return err
		}
		if err := tell([]Ordered{{Index: 9, At: 5}}); err != nil {
			return err
		}
		return errors.New("too slow")
	}}
	c := NewClient(serve(t, w))
	for _, from := range []uint64{7, Now} {
		var seen []uint64
		err := c.Watch(t.Context(), from, func(evs []Ordered) error {
			for _, e := range evs {
				seen = append(seen, e.Index)
			}
			return nil
		})
		if err == nil || err.Error() != "too slow" || !slices.Equal(seen, []uint64{7, 8, 9}) {
			t.Errorf("seen %v, then %v", seen, err)
		}
	}
	if !slices.Equal(asked, []uint64{7, Now}) {
		t.Errorf("asked from %v", asked)
	}
}

func TestWatchEndsWhenItsReaderHasEnough(t *testing.T) {
	ended := make(chan error, 1)
	w := &watched{watch: func(ctx context.Context, _ uint64, tell func([]Ordered) error) error {
		if err := tell([]Ordered{{Index: 1}}); err != nil {
			return err
		}
		<-ctx.Done()
		ended <- ctx.Err()
		return ctx.Err()
	}}
	enough := errors.New("enough")
	if err := NewClient(serve(t, w)).Watch(t.Context(), 0, func([]Ordered) error { return enough }); !errors.Is(err, enough) {
		t.Errorf("the watch ended with %v", err)
	}
	if err := <-ended; err == nil {
		t.Error("the node was not told")
	}
}
