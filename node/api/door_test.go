package api

import (
	"context"
	"errors"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// knock sends a request to a door and gives what it answers.
func knock(d *Door) chan string {
	said := make(chan string, 1)
	go func() {
		w := httptest.NewRecorder()
		d.ServeHTTP(w, httptest.NewRequest("POST", "/v1/machines/m/start", strings.NewReader("{}")))
		said <- w.Body.String()
	}()
	return said
}

// named is a node that says its name.
func named(name string) *backend {
	return &backend{start: func(context.Context, string) (Machine, error) { return Machine{}, errors.New("said " + name) }}
}

func TestRequestWaitsForTheNodeThatComesNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d Door
		first, close1 := context.WithCancel(t.Context())
		early := knock(&d)
		synctest.Wait()
		d.Open(first, named("first"))
		if got := <-early; !strings.Contains(got, "said first") {
			t.Errorf("before the first there is: %s", got)
		}
		close1()
		between := knock(&d)
		time.Sleep(knockFor / 2)
		d.Open(t.Context(), named("second"))
		if got := <-between; !strings.Contains(got, "said second") {
			t.Errorf("between two: %s", got)
		}
	})
}

func TestRequestDoesNotWaitForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		if got := <-knock(new(Door)); !strings.Contains(got, "is opening itself again") || time.Since(began) != knockFor {
			t.Errorf("after %v: %s", time.Since(began), got)
		}
	})
}

func TestRequestThatANodeLeavesBehindEndsWithIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d Door
		ctx, leave := context.WithCancel(t.Context())
		d.Open(ctx, &backend{start: func(ctx context.Context, _ string) (Machine, error) {
			<-ctx.Done()
			return Machine{}, context.Cause(ctx)
		}})
		said := knock(&d)
		synctest.Wait()
		leave()
		if got := <-said; !strings.Contains(got, "stops or opens itself again") {
			t.Error(got)
		}
	})
}
