package main

import (
	stdbytes "bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/dcnode/dcnode/consensus/ledger"
	"github.com/dcnode/dcnode/node"
	"github.com/dcnode/dcnode/node/api"
)

func memberCommand(t *terminal) *cobra.Command {
	return group(&cobra.Command{
		Use: "member", Short: "Members: list, invite, join, approve, refuse, leave, set, rotate",
		Long: `Who is a member is decided by the members: a change holds when members of more than
two thirds of the weight have said yes, those that are away counted too.

  at the new site   dcnode init --data DIR --site NAME --overlay genesis.json
  at a member       dcnode member invite member.json -o invitation.json
  at other members  dcnode member approve NAME
  at the new site   dcnode member join invitation.json && dcnode run`,
	}, memberList(t), memberInvite(t), memberJoin(t), memberVote(t, true), memberVote(t, false), memberLeave(t), memberSet(t), memberRotate(t))
}

func memberList(t *terminal) *cobra.Command {
	return &cobra.Command{
		Use: "ls", Short: "List the members, and what is being voted on", Args: exactly(),
		Long: `Lists the members as this node sees them. A member that is away counts as before: it
changes neither votes nor order. asleep: it is connected, but so far behind or so often
late that the order does not wait for it. KEPT is how many of its bids it kept, of those
that won.`,
		RunE: func(c *cobra.Command, _ []string) error {
			cl, err := t.client()
			if err != nil {
				return err
			}
			l, err := cl.ListMembers(c.Context())
			if err != nil {
				return err
			}
			return t.print(l, func() { t.showMembers(l) })
		},
	}
}

func (t *terminal) showMembers(l api.MemberList) {
	rows := []string{"SITE\tREGION\tWEIGHT\tID\tSTATE\tRTT\tKEPT\tMACHINES"}
	for _, m := range l.Members {
		rtt := "-"
		if m.RTT > 0 {
			rtt = fmt.Sprintf("%.1f ms", float64(m.RTT)/1000)
		}
		region := m.Region
		if region == "" {
			region = "-"
		}
		rows = append(rows, fmt.Sprintf("%s\t%s\t%d\t%d\t%s\t%s\t%d of %d\t%s",
			m.Site, region, m.Weight, m.ID, memberState(m), rtt, m.Record.Kept, m.Record.Kept+m.Record.Broken, strings.Join(m.Machines, " ")))
	}
	t.table(rows...)
	for _, p := range l.Proposals {
		t.showProposal(p)
	}
}

// memberState is how a member stands, in words.
func memberState(m api.Member) string {
	s := string(m.State)
	if m.State == api.MemberAway && m.Since != 0 {
		s += " since " + time.Unix(0, m.Since).Format("2006-01-02 15:04:05")
	}
	if m.Rotating {
		s += ", changes its key"
	}
	return s
}

// showProposal says what a proposal is and what becomes of it.
func (t *terminal) showProposal(p api.Proposal) {
	switch {
	case p.Holds:
		fmt.Fprintf(t.out, "%s: decided\n", proposed(p))
	case !p.Open:
		fmt.Fprintf(t.out, "%s: not any more: it was refused, or its time was over\n", proposed(p))
	default:
		fmt.Fprintf(t.out, "proposal %d by %s: %s: needs %d more of weight %d", p.ID, p.By, proposed(p), p.Needs, p.Total)
		if len(p.Yes) > 0 {
			fmt.Fprintf(t.out, "; yes: %s", strings.Join(p.Yes, ", "))
		}
		if len(p.No) > 0 {
			fmt.Fprintf(t.out, "; no: %s", strings.Join(p.No, ", "))
		}
		if p.Reason != "" {
			fmt.Fprintf(t.out, " (%s)", p.Reason)
		}
		fmt.Fprintln(t.out)
	}
}

// proposed is what a proposal would do.
func proposed(p api.Proposal) string {
	switch p.Change {
	case ledger.Join:
		s := fmt.Sprintf("%s joins as member %d with weight %d", p.Site, p.Member, p.Weight)
		if p.Region != "" {
			s += " in region " + p.Region
		}
		return s
	case ledger.Leave:
		if p.Force {
			return p.Site + " leaves, although machines are there"
		}
		return p.Site + " leaves"
	}
	var to []string
	if p.Weight != 0 {
		to = append(to, fmt.Sprintf("weight %d", p.Weight))
	}
	if p.Region != "" {
		to = append(to, "region "+p.Region)
	}
	return p.Site + " gets " + strings.Join(to, " and ")
}

func memberInvite(t *terminal) *cobra.Command {
	var out string
	c := &cobra.Command{
		Use: "invite MEMBER.json", Short: "Propose a new member, and write its invitation", Args: exactly("MEMBER.json"),
		Long: `Proposes the site whose member.json this is, with this member's vote for it, and writes
an invitation for it: the founding roster, the members of today and where they are
found. The invitation gives no rights: the votes of the members do. Asking again writes
it again.`,
		Example: "  dcnode member invite dc4/member.json -o dc4.json",
		RunE: func(c *cobra.Command, args []string) error {
			if _, err := node.ReadCard(args[0]); err != nil {
				return fmt.Errorf("read member: %w", err)
			}
			card, err := os.ReadFile(args[0])
			if err != nil {
				return fmt.Errorf("read member: %w", err)
			}
			cl, err := t.client()
			if err != nil {
				return err
			}
			i, err := cl.InviteMember(c.Context(), api.Invite{Card: card})
			if err != nil {
				return err
			}
			if out == "" && !t.json {
				out = i.Proposal.Site + ".invitation.json"
			}
			if out != "" {
				if err := writeInvitation(out, i.Invitation); err != nil {
					return err
				}
			}
			return t.print(i, func() {
				t.showProposal(i.Proposal)
				fmt.Fprintf(t.out, "the invitation is in %s: bring it to %s, and say there `dcnode member join %s`\n", out, i.Proposal.Site, out)
				if i.Proposal.Open {
					fmt.Fprintf(t.out, "other members say `dcnode member approve %s`\n", i.Proposal.Site)
				}
			})
		},
	}
	c.Flags().StringVarP(&out, "out", "o", "", "file to write (default: SITE.invitation.json; with --json, none)")
	return c
}

func writeInvitation(path string, text json.RawMessage) error {
	var b stdbytes.Buffer
	if err := json.Indent(&b, text, "", "  "); err != nil {
		return fmt.Errorf("write invitation: %w", err)
	}
	b.WriteByte('\n')
	if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
		return fmt.Errorf("write invitation: %w", err)
	}
	return nil
}

func memberJoin(t *terminal) *cobra.Command {
	var listen []string
	c := &cobra.Command{
		Use: "join INVITATION.json", Short: "Make this site the one that an invitation is for", Args: exactly("INVITATION.json"),
		Long: `Keeps the invitation in the data directory, which ` + "`dcnode init`" + ` has made. The next
` + "`dcnode run`" + ` needs no flags: it waits for the approval of the members, takes over what
they have agreed on, and is a member.`,
		RunE: func(_ *cobra.Command, args []string) error {
			i, err := node.Accept(t.data, args[0], listen)
			if err != nil {
				return err
			}
			return t.print(map[string]any{"network": i.Network(), "member": i.Member, "site": i.Card.Site}, func() {
				fmt.Fprintf(t.out, "%s is invited to overlay %s as member %d, by %s; start it with `dcnode run --data %s`\n", i.Card.Site, i.Network(), i.Member, i.Inviter(), t.data)
			})
		},
	}
	c.Flags().StringSliceVar(&listen, "listen", nil, "multiaddrs to listen on, from now on (default: TCP and QUIC on port 4001)")
	return c
}

func memberVote(t *terminal, yes bool) *cobra.Command {
	use, short := "approve SITE|PROPOSAL", "Vote for a change of the members"
	if !yes {
		use, short = "refuse SITE|PROPOSAL", "Vote against a change of the members"
	}
	return &cobra.Command{
		Use: use, Short: short, Args: exactly("SITE"),
		Long: short + ". The last word of a member counts, until the change holds.",
		RunE: func(c *cobra.Command, args []string) error {
			cl, err := t.client()
			if err != nil {
				return err
			}
			p, err := cl.VoteMember(c.Context(), api.CastVote{On: args[0], Yes: yes})
			if err != nil {
				return err
			}
			return t.print(p, func() { t.showProposal(p) })
		},
	}
}

func memberLeave(t *terminal) *cobra.Command {
	var q api.LeaveOverlay
	c := &cobra.Command{
		Use: "leave [SITE]", Short: "Propose that this site, or another, is a member no more", Args: atMostOne("SITE"),
		Long: `Proposes that this site, or the one that is named, leaves. It needs the votes of members
of more than two thirds of the weight, for it takes its weight with it. A site that has
machines cannot leave, unless by --force: move them away first.`,
		RunE: func(c *cobra.Command, args []string) error {
			cl, err := t.client()
			if err != nil {
				return err
			}
			if len(args) > 0 {
				q.Site = args[0]
			}
			p, err := cl.RemoveMember(c.Context(), q)
			if err != nil {
				return err
			}
			return t.print(p, func() { t.showProposal(p) })
		},
	}
	c.Flags().BoolVar(&q.Force, "force", false, "although machines are there: nobody can run them until their account says otherwise")
	c.Flags().StringVar(&q.Reason, "reason", "", "why, for those who vote")
	return c
}

func memberSet(t *terminal) *cobra.Command {
	var q api.SetMember
	c := &cobra.Command{
		Use: "set SITE", Short: "Propose another weight or region of a member", Args: exactly("SITE"),
		RunE: func(c *cobra.Command, args []string) error {
			if q.Weight == 0 && q.Region == "" {
				return &usageError{errors.New("give --weight or --region: see `dcnode member set --help`")}
			}
			cl, err := t.client()
			if err != nil {
				return err
			}
			q.Site = args[0]
			p, err := cl.SetMember(c.Context(), q)
			if err != nil {
				return err
			}
			return t.print(p, func() { t.showProposal(p) })
		},
	}
	c.Flags().Uint64Var(&q.Weight, "weight", 0, "weight of its votes, 1 to 2^32")
	c.Flags().StringVar(&q.Region, "region", "", "region that it is in")
	return c
}

func memberRotate(t *terminal) *cobra.Command {
	return &cobra.Command{
		Use: "rotate", Short: "Give this member another key", Args: exactly(),
		Long: `Makes another key for this member and has it ordered. When it is in force the node opens
itself again, with the new key and a new peer ID, and the old key is forgotten. Nobody
has to vote, and nobody else has to do anything.`,
		RunE: func(c *cobra.Command, _ []string) error {
			cl, err := t.client()
			if err != nil {
				return err
			}
			r, err := cl.RotateKey(c.Context())
			if err != nil {
				return err
			}
			return t.print(r, func() {
				fmt.Fprintf(t.out, "the members know the new key; this node, %s until now, is %s in a moment\n", r.Old, r.New)
			})
		},
	}
}

// atMostOne wants one argument or none.
func atMostOne(name string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) <= 1 {
			return nil
		}
		return &usageError{fmt.Errorf("%s takes one argument (%s) or none, got %d: see `%s --help`", c.CommandPath(), name, len(args), c.CommandPath())}
	}
}
