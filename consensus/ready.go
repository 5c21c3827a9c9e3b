package consensus

// Ready returns the work that has come up, and whether there is any. What it
// returns is returned again until Advance says that it is done.
func (c *Core) Ready() (Ready, bool) {
	kept := c.ready.Missing[:0]
	for _, w := range c.ready.Missing {
		if !c.Has(w.Hash) {
			kept = append(kept, w)
		}
	}
	c.ready.Missing = kept
	c.given = Ready{
		Save: clip(c.ready.Save), Send: clip(c.ready.Send), Missing: append([]Want(nil), kept...),
		Checkpoints: c.taken(), Ordered: clip(c.ready.Ordered), Stale: clip(c.ready.Stale),
	}
	g := &c.given
	if k := len(g.Checkpoints); k < len(c.due) { // not past the next checkpoint
		end := 0
		for end < len(g.Ordered) && g.Ordered[end].Index < c.due[k].Ordered {
			end++
		}
		g.Ordered = g.Ordered[:end:end]
	}
	return *g, len(g.Save)+len(g.Send)+len(g.Missing)+len(g.Checkpoints)+len(g.Ordered)+len(g.Stale) > 0
}

// Advance says that the work of the last Ready is done.
func (c *Core) Advance() {
	c.ready.Save = rest(c.ready.Save, len(c.given.Save))
	c.ready.Send = rest(c.ready.Send, len(c.given.Send))
	c.ready.Missing = rest(c.ready.Missing, len(c.given.Missing))
	c.ready.Ordered = rest(c.ready.Ordered, len(c.given.Ordered))
	c.ready.Stale = rest(c.ready.Stale, len(c.given.Stale))
	c.due = rest(c.due, len(c.given.Checkpoints))
	c.given = Ready{}
	c.unschedule()
	c.decide() // rounds whose rules are settled by what was applied
	c.drain()
}

func clip[T any](s []T) []T { return s[:len(s):len(s)] }

func rest[T any](s []T, done int) []T {
	if done >= len(s) {
		return nil
	}
	return s[done:]
}
