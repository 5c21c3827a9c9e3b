package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/dcnode/dcnode/consensus/ledger"
	"github.com/dcnode/dcnode/node/api"
)

// signFlags are how a command speaks for an account.
type signFlags struct {
	account  string
	keys     []string
	signOnly bool
	out      string
}

// addKeys adds the flags for who signs.
func (f *signFlags) addKeys(c *cobra.Command) {
	c.Flags().StringArrayVar(&f.keys, "key", nil, "file with a key of the account that signs; may be given again")
	c.Flags().BoolVar(&f.signOnly, "sign-only", false, "order nothing: write the signed transaction to a file, for others to sign")
	c.Flags().StringVarP(&f.out, "out", "o", "", "file for --sign-only")
}

// addAccount adds --account.
func (f *signFlags) addAccount(c *cobra.Command, use string) {
	c.Flags().StringVar(&f.account, "account", "", use)
}

// halfSigned is a transaction that waits for more signatures, as a file that can be
// mailed: it holds no secret.
type halfSigned struct {
	Overlay  string   `json:"overlay"` // name, hex
	Account  string   `json:"account"`
	Says     string   `json:"says"` // for people; what counts is Tx
	SignedBy []string `json:"signed_by"`
	Tx       []byte   `json:"tx"`
}

func consensusNow() ledger.Time { return ledger.Time(time.Now().UnixNano()) }

// sign makes a signed transaction of a body.
func (f *signFlags) sign(s api.Signing, account string, body ledger.Body) (ledger.Tx, error) {
	tx := ledger.Tx{Seq: max(s.Seq, uint64(max(time.Now().UnixNano(), 0))), Account: account, Body: body}
	if len(f.keys) == 0 {
		return tx, &usageError{fmt.Errorf("account %s has to sign this: give its key with --key FILE", account)}
	}
	if len(s.Network) != 32 {
		return tx, errors.New("the node does not say which overlay this is")
	}
	return tx, signWith(&tx, [32]byte(s.Network), f.keys)
}

// signWith adds the signatures of keys that have not signed yet.
func signWith(tx *ledger.Tx, network [32]byte, files []string) error {
	keys, err := readKeyFiles(files)
	if err != nil {
		return err
	}
	for i, k := range keys {
		if slices.ContainsFunc(tx.Sigs, func(s ledger.Sig) bool { return slices.Equal(s.Key, publicOf(k)) }) {
			return fmt.Errorf("the key in %s has signed already: each key signs once", files[i])
		}
		if err := ledger.Sign(network, tx, k); err != nil {
			return err
		}
	}
	return nil
}

// say signs body for an account and has it ordered or, with --sign-only, writes it to
// a file. said is false then.
func (t *terminal) say(ctx context.Context, cl *api.Client, f *signFlags, account string, body ledger.Body) (_ api.Said, said bool, err error) {
	s, err := cl.Signing(ctx, account)
	if err != nil {
		return api.Said{}, false, err
	}
	tx, err := f.sign(s, account, body)
	if err != nil {
		return api.Said{}, false, err
	}
	if f.signOnly {
		return api.Said{}, false, t.keepHalf(f.out, hex.EncodeToString(s.Network), tx, s.Account)
	}
	raw, err := ledger.Encode(tx)
	if err != nil {
		return api.Said{}, false, err
	}
	out, err := cl.Say(ctx, api.Say{Signed: raw})
	return out, err == nil, err
}

// keepHalf writes a transaction for others to sign.
func (t *terminal) keepHalf(path, overlay string, tx ledger.Tx, a *ledger.Account) error {
	if path == "" {
		return &usageError{errors.New("--sign-only needs -o FILE")}
	}
	h, err := writeHalf(path, overlay, tx)
	if err != nil {
		return err
	}
	return t.print(h, func() {
		fmt.Fprintf(t.out, "%s: account %s %s\nsigned by %d", path, h.Account, h.Says, len(h.SignedBy))
		if a != nil && len(a.Keys) > 0 {
			fmt.Fprintf(t.out, "; it takes %d of its %d keys", a.Threshold, len(a.Keys))
		}
		fmt.Fprintf(t.out, "\nadd one with `dcnode account sign %s --key FILE`, order it with `dcnode account submit %s`\n", path, path)
	})
}

func writeHalf(path, overlay string, tx ledger.Tx) (halfSigned, error) {
	raw, err := ledger.Encode(tx)
	if err != nil {
		return halfSigned{}, err
	}
	h := halfSigned{Overlay: overlay, Account: tx.Account, Says: ledger.SayBody(tx.Body, consensusNow()), SignedBy: []string{}, Tx: raw}
	for _, s := range tx.Sigs {
		h.SignedBy = append(h.SignedBy, hex.EncodeToString(s.Key))
	}
	b, err := json.MarshalIndent(h, "", "  ")
	if err != nil {
		return h, err
	}
	if err := os.WriteFile(path, append(b, '\n'), 0o644); err != nil {
		return h, fmt.Errorf("keep the transaction: %w", err)
	}
	return h, nil
}

// readHalf believes nothing of the file but the transaction and which overlay it is
// for.
func readHalf(path string) (network [32]byte, tx ledger.Tx, err error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return network, tx, fmt.Errorf("read transaction: %w", err)
	}
	var h halfSigned
	if err := json.Unmarshal(b, &h); err != nil {
		return network, tx, fmt.Errorf("read transaction %s: %w", path, err)
	}
	name, err := hex.DecodeString(h.Overlay)
	if err != nil || len(name) != len(network) {
		return network, tx, fmt.Errorf("read transaction %s: it does not name its overlay", path)
	}
	tx, err = ledger.Decode(h.Tx)
	if err == nil && tx.Account == "" {
		err = errors.New("it is of no account")
	}
	if err != nil {
		return network, tx, fmt.Errorf("read transaction %s: %w", path, err)
	}
	return [32]byte(name), tx, nil
}

func accountSign(t *terminal) *cobra.Command {
	var keys []string
	c := &cobra.Command{
		Use: "sign FILE --key KEY", Short: "Add a signature to a transaction that --sign-only wrote", Args: exactly("FILE"),
		Long: "Shows what the transaction says and adds the signature of each key. It needs no node.",
		RunE: func(_ *cobra.Command, args []string) error {
			network, tx, err := readHalf(args[0])
			if err != nil {
				return err
			}
			if len(keys) == 0 {
				return &usageError{errors.New("name a key with --key FILE")}
			}
			if err := signWith(&tx, network, keys); err != nil {
				return err
			}
			h, err := writeHalf(args[0], hex.EncodeToString(network[:]), tx)
			if err != nil {
				return err
			}
			return t.print(h, func() {
				fmt.Fprintf(t.out, "account %s %s\nsigned by %d\n", h.Account, h.Says, len(h.SignedBy))
			})
		},
	}
	c.Flags().StringArrayVar(&keys, "key", nil, "file with a key of the account; may be given again")
	return c
}

func accountSubmit(t *terminal) *cobra.Command {
	return &cobra.Command{
		Use: "submit FILE", Short: "Order a transaction that its account has signed", Args: exactly("FILE"),
		RunE: func(c *cobra.Command, args []string) error {
			_, tx, err := readHalf(args[0])
			if err != nil {
				return err
			}
			raw, err := ledger.Encode(tx)
			if err != nil {
				return err
			}
			cl, err := t.client()
			if err != nil {
				return err
			}
			said, err := cl.Say(c.Context(), api.Say{Signed: raw})
			if err != nil {
				return err
			}
			return t.print(said, func() {
				fmt.Fprintf(t.out, "ordered as %d: account %s %s\n", said.Index, tx.Account, ledger.SayBody(tx.Body, consensusNow()))
			})
		},
	}
}
