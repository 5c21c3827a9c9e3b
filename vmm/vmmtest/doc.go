// Package vmmtest is the conformance suite of [vmm.Driver]: what every driver owes
// to those who move machines, whatever its machines are made of. A driver's tests
// fill in a [Suite] and call Run.
//
// It moves machines by copying bytes in memory, with no encoding and no network,
// and judges by what the guest says: its console counts up, `tick 0`, `tick 1`, …,
// without a gap or a repeat, wherever it runs.
package vmmtest
