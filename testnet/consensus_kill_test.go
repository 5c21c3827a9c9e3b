package testnet

import (
	"flag"
	"path/filepath"
	"testing"
)

var kills = flag.Int("kills", 5, "how often the kill tests kill a member")

func TestKilledMembersLoseNothingAndNeverContradictThemselves(t *testing.T) {
	for name, members := range map[string]int{"one of four": 4, "two of seven": 7} {
		t.Run(name, func(t *testing.T) {
			rep, err := Kill(t.Context(), KillOptions{
				Members: members, Kills: *kills, Program: filepath.Join(built(t), "dcnode"), Out: t.Output(),
			})
			t.Logf("%+v", rep)
			if err != nil {
				t.Fatal(err)
			}
			if rep.Kills < *kills || rep.Submitted < int64(*kills) || rep.Ordered == 0 {
				t.Errorf("hardly anything happened: %+v", rep)
			}
		})
	}
}

// A reboot loses what was not synced: the member then does not know what it said last,
// and must learn it from the others before it speaks again.
func TestMembersThatLoseTheEndOfTheirLogNeverContradictThemselves(t *testing.T) {
	rep, err := Kill(t.Context(), KillOptions{
		Kills: *kills, Reboot: true, Program: filepath.Join(built(t), "dcnode"), Out: t.Output(),
	})
	t.Logf("%+v", rep)
	if err != nil {
		t.Fatal(err)
	}
	if rep.Kills < *kills || rep.Ordered == 0 || rep.Cut == 0 && *kills >= 20 { // now and then all was synced
		t.Errorf("hardly anything happened, or nothing was cut: %+v", rep)
	}
}
