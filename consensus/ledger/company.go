package ledger

import "fmt"

// maxCompany bounds the machines that one follows, by way of others too.
const maxCompany = 1024

// apartFromCompany is what is against a machine's being at a member because others that it
// has to be with are not there. One counts where it is owned. On its way it counts if the
// two move together, from one site to the other: its own move may end yet, and would
// leave whoever had followed it from elsewhere alone. When it does end, so does that of
// the machine which goes with it, if that is not released.
func (s *State) apartFromCompany(m *Machine, to *Member) []objection {
	var out []objection
	for _, name := range m.Policy.With {
		switch o := s.Machine(name); {
		case name == m.Name:
		case o == nil:
			out = append(out, objection{
				fmt.Sprintf("the policy of machine %s wants it where %s is, and there is no such machine", m.Name, name),
				fmt.Sprintf("take %s out of the policy of machine %s", name, m.Name),
			})
		case o.Owner == to.ID, o.Owner == m.Owner && o.Move != nil && o.Move.To == to.ID:
		case o.Move != nil && o.Move.To == to.ID:
			out = append(out, objection{
				fmt.Sprintf("the policy of machine %s wants it where %s is: at %s, on its way to %s", m.Name, name, s.Site(o.Owner), to.Site),
				fmt.Sprintf("wait until %s has arrived at %s", name, to.Site),
			})
		default:
			out = append(out, objection{
				fmt.Sprintf("the policy of machine %s wants it where %s is: at %s", m.Name, name, s.Site(o.Owner)),
				fmt.Sprintf("move %s to %s first", name, to.Site),
			})
		}
	}
	return out
}

// circle says why a machine cannot follow others: one of them follows it, at once or by way
// of more. None of them could move first.
func (s *State) circle(name string, with []string) error {
	seen := map[string]bool{name: true}
	var next []string
	for _, other := range with {
		if !seen[other] {
			seen[other], next = true, append(next, other)
		}
	}
	for len(next) > 0 {
		if len(seen) > maxCompany {
			return fmt.Errorf("policy: with: machine %s would follow more than %d others, by way of them too", name, maxCompany)
		}
		o := s.Machine(next[0])
		next = next[1:]
		if o == nil {
			continue
		}
		for _, other := range o.Policy.With {
			if other == name {
				return fmt.Errorf("machine %s has to be where %s is: if each follows the other, at once or by way of others, none can move", o.Name, name)
			}
			if !seen[other] {
				seen[other], next = true, append(next, other)
			}
		}
	}
	return nil
}
