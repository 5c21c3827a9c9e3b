package ledgertest

import "github.com/dcnode/dcnode/consensus/ledger"

// everySaid and everyEffect have to be seen in a sample: what never happens is not
// tested.
var everySaid = []ledger.Kind{
	ledger.KindPropose, ledger.KindVote, ledger.KindRotate, ledger.KindAccount, ledger.KindQuota, ledger.KindPublish, ledger.KindWithdraw,
	ledger.KindHold, ledger.KindDefine, ledger.KindSet, ledger.KindDelete, ledger.KindPolicy, ledger.KindApprove, ledger.KindIntent,
	ledger.KindBid, ledger.KindAccept, ledger.KindBeat, ledger.KindRelease, ledger.KindConfirm, ledger.KindDecline, ledger.KindAbort,
	ledger.KindReclaim, ledger.KindReport, ledger.KindRoot, ledger.KindTick,
}

var everyEffect = []ledger.Kind{
	ledger.KindSelected, ledger.KindNowhere, ledger.KindLeaseEnd, ledger.KindRoster, ledger.KindLapsed, ledger.KindRejected,
}
