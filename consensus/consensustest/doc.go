// Package consensustest puts the hashgraph to the test: it runs whole networks of
// cores in virtual time.
package consensustest
