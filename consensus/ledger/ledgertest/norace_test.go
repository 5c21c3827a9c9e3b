//go:build !race

package ledgertest

const watched = false
