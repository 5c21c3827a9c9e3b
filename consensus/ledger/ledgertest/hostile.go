package ledgertest

import (
	"math"
	"reflect"
	"slices"
	"strings"

	"github.com/dcnode/dcnode/consensus/ledger"
)

// twist makes something that is not meant to hold of a transaction: another speaker,
// another account, or a field with what nobody expects. It is who carries it then.
func (w *world) twist(by ledger.MemberID, tx *ledger.Tx) ledger.MemberID {
	switch n := w.IntN(10); {
	case n < 3:
		return w.anyone()
	case n == 3 && tx.Account != "":
		tx.Account = ""
	case n == 3:
		tx.Account = w.accountName()
	default:
		for range 1 + w.IntN(2) {
			w.bend(reflect.ValueOf(tx.Body).Elem(), 0)
		}
	}
	return by
}

// bend changes one field somewhere in v.
func (w *world) bend(v reflect.Value, depth int) {
	switch v.Kind() {
	case reflect.Struct:
		if v.NumField() > 0 {
			w.bend(v.Field(w.IntN(v.NumField())), depth+1)
		}
	case reflect.Int, reflect.Int64:
		v.SetInt(pick(w, []int64{-1, 0, 1, math.MaxInt64, math.MinInt64, 1 << 50, 1<<50 + 1, 1 << 62, v.Int() + 1, v.Int() - 1, -v.Int()}))
	case reflect.Uint64:
		v.SetUint(pick(w, []uint64{0, 1, math.MaxUint64, math.MaxInt64, 1 << 32, 1<<32 + 1, v.Uint() + 1, v.Uint() - 1, uint64(w.IntN(30))}))
	case reflect.Bool:
		v.SetBool(!v.Bool())
	case reflect.String:
		v.SetString(pick(w, []string{
			"", "../x", "m1", "s1", "a0", "i0", "i0:v1", ":", "leave", strings.Repeat("x", 64), strings.Repeat("ü", 600), "a\x00b",
			strings.Repeat("y", 40_000), v.String() + " ",
		}))
	case reflect.Slice:
		w.bendList(v, depth)
	}
}

func (w *world) bendList(v reflect.Value, depth int) {
	n := v.Len()
	switch k := w.IntN(5); {
	case k == 0 || n == 0:
		if n == 0 && depth < 6 {
			e := reflect.New(v.Type().Elem()).Elem()
			w.bend(e, depth+1)
			v.Set(reflect.Append(v, e))
			return
		}
		v.SetZero()
	case k == 1: // doubled
		v.Set(reflect.AppendSlice(reflect.MakeSlice(v.Type(), 0, 2*n), reflect.AppendSlice(v.Slice3(0, n, n), v)))
	case k == 2: // far too many
		many := reflect.MakeSlice(v.Type(), 0, 2000)
		for range 700 {
			many = reflect.Append(many, v.Index(w.IntN(n)))
		}
		v.Set(many)
	case k == 3:
		c := reflect.AppendSlice(reflect.MakeSlice(v.Type(), 0, n), v)
		reflect.Swapper(c.Interface())(0, n-1)
		v.Set(c)
	default:
		c := reflect.AppendSlice(reflect.MakeSlice(v.Type(), 0, n), v)
		w.bend(c.Index(w.IntN(n)), depth+1)
		v.Set(c)
	}
}

// spoil changes the bytes of a transaction.
func (w *world) spoil(raw []byte) []byte {
	b := slices.Clone(raw)
	switch w.IntN(4) {
	case 0:
		return b[:w.IntN(len(b))]
	case 1:
		return append(b, byte(w.IntN(256)))
	case 2:
		i := w.IntN(len(b))
		return slices.Insert(b, i, byte(w.IntN(256)))
	}
	b[w.IntN(len(b))] ^= 1 << w.IntN(8)
	return b
}
