// Package merkle holds the ledger's state: maps that never change, whose content has
// one digest, and of which a part can be shown to a stranger.
//
// A Map is a trie over the nibbles of SHA-256(key). A subtree with at most 16 entries
// is one leaf; one with more is an inner node with a link for each next nibble. So the
// shape is a function of the content alone: whatever was inserted and deleted on the
// way, equal maps are equal blocks. Set and Delete copy the nodes on one path and share
// the rest, so that a copy of a Map costs nothing and stays what it was.
//
// A node is a block of DAG-CBOR, named by its CID (version 1, dag-cbor, SHA-256):
//
//	leaf  = {"e": [[key, value], …]}            keys are byte strings, ascending
//	inner = {"c": [16 × (link or null)], "n": entries below}
//
// A node's block is made once and kept, so the root of a map with k changes costs the
// encoding of k paths:
//
//	var machines merkle.Map[Machine]
//	machines = machines.Set("web1", m)
//	root, err := machines.Root()          // what members sign
//	proof, err := machines.Proof("web1")  // what a stranger checks with Find
//	car, err := merkle.WriteCAR(root, machines.Blocks)
//
// and back:
//
//	root, get, err := merkle.ReadCAR(car)
//	machines, err := merkle.Load[Machine](root, get)
//
// Encode and Decode are the codec beneath, for transactions and other records: one
// value has one encoding, and Decode takes no other.
//
// # Who may call what at once
//
// A Map may be read and extended (Get, Len, All, Set, Delete) by any number of
// goroutines. Root, Blocks and Proof keep blocks in the nodes, which maps share: one
// goroutine at a time. Once Root of a Map has returned without error, nothing is left
// to keep, and all methods of that Map may be called by anyone.
package merkle
