package ledger

// apply changes nothing: members compare what the author says with what they had
// after that event, see Outcome.
func (t *Root) apply(_ *State, a *act) ([]Effect, error) {
	if len(t.Outcome) != 32 {
		return nil, refuse("the digest of an outcome has 32 bytes, not %d", len(t.Outcome))
	}
	if t.Index >= a.Index {
		return nil, refuse("nobody can know at event %d what came of event %d", a.Index, t.Index)
	}
	return []Effect{{Kind: KindRoot, Member: a.Author}}, nil
}

func (*Tick) apply(*State, *act) ([]Effect, error) { return nil, nil }
