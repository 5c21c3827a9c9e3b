// Package ledgertest tries to break the ledger: it makes random worlds of members,
// accounts, images, machines, policies, moves and votes, lets honest and hostile
// transactions happen in them, and compares what the ledger makes of each with rules
// that are written down a second time.
//
// A [Script] is such a world and what was ordered in it, as bytes. [Generate] makes
// one from a seed while it runs it; [Replay] runs one again; [Shrink] looks for a
// smaller one that fails too.
//
// # What is compared
//
// After each transaction, and each time that the clock of the order has moved on, a
// model looks at the state before and the state after. It calls none of the ledger's
// predicates: policies, windows, quotas, votes, signatures and deadlines are derived
// from the entries of the state by its own, slower, means.
//
//   - A machine has one owner. Each handover makes its epoch one greater, nothing makes
//     it less. It goes to another member only by a Release that the policies in force
//     then allow, and back only by the words of who may say so.
//   - The room that is reserved at a member is that of the moves which have selected it.
//   - What an account is said to have is what it has, and nothing that was accepted
//     exceeds a quota.
//   - The roster changes by more than two thirds of the weight of those in it, and no
//     number of a member is used twice.
//   - No number of an author holds twice; a refused transaction changes nothing.
//   - No deadline is lost: each phase and each proposal gets one in the first round
//     after its own, and ends by it.
//
// Several replicas take the same bytes. One is loaded from its own snapshot again and
// again, one lives on as a clone while what it was cloned from is fed other things.
// All have the same effects, outcomes and roots.
package ledgertest
