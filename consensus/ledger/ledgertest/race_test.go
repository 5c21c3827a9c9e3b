//go:build race

package ledgertest

// watched: the race detector makes everything some ten times slower.
const watched = true
