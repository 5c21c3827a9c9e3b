package ledger

// Member is what the ledger knows of a member.
type Member struct {
	ID     MemberID `json:"id"`
	Site   string   `json:"site"` // unique: people call a member by its site
	Region string   `json:"region,omitempty"`
	Weight uint64   `json:"weight"`
	Key    []byte   `json:"key"`           // Ed25519 public key: signs its events, names its peer
	Since  uint64   `json:"since"`         // index at which it became a member; 0: founder
	Old    []byte   `json:"old,omitempty"` // its key before the last rotation
	// Rotated is when its rotations would be over if there had been one in rotateEvery.
	Rotated Time   `json:"rotated,omitempty"`
	Record  Record `json:"record"` // how it has kept its word
}

// Record is how a member has kept its bids.
type Record struct {
	Bids   uint64 `json:"bids"`
	Won    uint64 `json:"won"`
	Kept   uint64 `json:"kept"`
	Broken uint64 `json:"broken"` // accepted too late or not at all, or declined
	Silent uint64 `json:"silent"` // biddings in a row that it let pass; nobody waits for it after MaxSilent
	// Trust is what its predictions are multiplied by, in 1/1024: what its moves took,
	// by consensus time, over what its bids had promised.
	Trust uint64 `json:"trust"`
}

// MaxSilent is how many biddings in a row a member may let pass until no bidding
// waits for it any more. A bid sets it back.
const MaxSilent = 3

// Change is what a proposal would do to the roster.
type Change string

// The changes of the roster that members vote on.
const (
	Join   Change = "join"
	Leave  Change = "leave"
	Update Change = "update" // region or weight
)

// Proposal is a change of the roster that waits for the votes of more than two
// thirds of the weight.
type Proposal struct {
	ID      uint64   `json:"id"`      // index of the Propose in the order
	Event   []byte   `json:"event"`   // hash of the event with the Propose
	Content []byte   `json:"content"` // see Propose.Digest
	Change  Change   `json:"change"`
	Member  MemberID `json:"member"` // whom it is about; of a Join: the number that it would have
	Site    string   `json:"site"`
	Region  string   `json:"region,omitempty"`
	Weight  uint64   `json:"weight,omitempty"`
	Key     []byte   `json:"key,omitempty"`   // of a Join
	Force   bool     `json:"force,omitempty"` // of a Leave: although machines are there
	By      MemberID `json:"by"`
	Reason  string   `json:"reason,omitempty"`
	Yes     []Vote   `json:"yes,omitempty"` // by member
	No      []Vote   `json:"no,omitempty"`
	Expires Time     `json:"expires"` // 0: not known yet, see Advance
	Round   uint64   `json:"round"`
}

// Vote is a member's word on a proposal; Event carries its signature.
type Vote struct {
	Member MemberID `json:"member"`
	Event  []byte   `json:"event"`
}

// Account is who machines and images belong to: people with keys of their own, or,
// for one with the name of a member's site and no keys, that member itself. When that
// member leaves while something belongs to its account, the account goes on with the
// key that the member had, and the same key can take site and account up again.
type Account struct {
	Name      string   `json:"name"`
	Keys      [][]byte `json:"keys,omitempty"`      // Ed25519
	Threshold int      `json:"threshold,omitempty"` // of Keys must sign
	Sponsor   MemberID `json:"sponsor"`             // the member that let it in and sets its quota
	Quota     Quota    `json:"quota"`
	Used      Quota    `json:"used"`
	Policy    Policy   `json:"policy"` // holds for all of its machines
}

// Quota bounds what an account has. In a quota 0 is no bound.
type Quota struct {
	Machines int64 `json:"machines,omitempty"`
	Memory   int64 `json:"memory,omitempty"` // bytes
	Images   int64 `json:"images,omitempty"`
}

// Image is a published name with its versions. It belongs to an account, and nobody
// else can publish under it.
type Image struct {
	Name    string    `json:"name"`
	Account string    `json:"account"`
	Tags    []Version `json:"tags"` // by tag and commit
}

// Version is an image under one tag. Tags with one commit have the same holders and
// machines.
type Version struct {
	Tag       string     `json:"tag"`    // empty: its tag is another commit's by now, but machines are made from it
	Commit    string     `json:"commit"` // CID
	Size      int64      `json:"size"`   // bytes of its disks as the guest sees them
	Stored    int64      `json:"stored"` // bytes of its blocks
	Publisher MemberID   `json:"publisher"`
	Holders   []MemberID `json:"holders"`  // ascending: who says that it has all blocks
	Machines  int64      `json:"machines"` // that were made from it
}

// Handover is one change of a machine's owner.
type Handover struct {
	Index uint64   `json:"index"` // place in the order from which it holds
	Event []byte   `json:"event"` // hash of the event that said so
	Epoch uint64   `json:"epoch"`
	Owner MemberID `json:"owner"`
	Why   Kind     `json:"why"`
}

// maxHandovers is how many of a machine's last handovers the state keeps.
const maxHandovers = 32

// Machine is a machine and who may run it.
type Machine struct {
	Name      string     `json:"name"`
	Account   string     `json:"account"` // whom it belongs to
	Image     string     `json:"image"`   // name:tag; the commit is Commit
	Commit    string     `json:"commit"`
	Spec      []byte     `json:"-" cbor:"spec"` // a vmm.Spec as JSON, opaque here
	Memory    int64      `json:"memory"`
	Owner     MemberID   `json:"owner"` // the only member that may run it
	Epoch     uint64     `json:"epoch"`
	Stopped   bool       `json:"stopped,omitempty"`
	Policy    Policy     `json:"policy"`
	Approvals []Approval `json:"approvals,omitempty"` // of its next move
	Move      *Move      `json:"move,omitempty"`      // the move that is under way
	Last      *Move      `json:"last,omitempty"`      // the move that ended last
	Handovers []Handover `json:"handovers"`           // the last ones
	Habit     Habit      `json:"habit"`               // what its moves were
}

// Approval is the word of an account for one move of a machine.
type Approval struct {
	Account string   `json:"account"`
	Epoch   uint64   `json:"epoch"`
	To      MemberID `json:"to,omitempty"` // 0: anywhere
	Until   Time     `json:"until"`
}

// Policy says what may be done with a machine. The zero Policy allows everything.
// Lists are sorted, without doubles and at most maxPolicyList long.
type Policy struct {
	Regions      []string `json:"regions,omitempty"`       // only these; a site without a region is in none
	NotRegions   []string `json:"not_regions,omitempty"`   // none of these
	Sites        []string `json:"sites,omitempty"`         // only these
	NotSites     []string `json:"not_sites,omitempty"`     // none of these
	Apart        []string `json:"apart,omitempty"`         // machines of its account that must not be at one site with it, whichever moves
	With         []string `json:"with,omitempty"`          // machines whose site it must move to
	MaxDowntime  int64    `json:"max_downtime,omitempty"`  // milliseconds, the longest pause; 0: as the mover says
	MaxBandwidth int64    `json:"max_bandwidth,omitempty"` // bytes a second; 0: no cap
	Windows      []Span   `json:"windows,omitempty"`       // when it may move; none: always
	PostCopy     bool     `json:"post_copy,omitempty"`     // may run there before all of its memory is there
	Movers       []string `json:"movers,omitempty"`        // accounts of which Approvals must approve a move; none: its owner decides
	Approvals    int      `json:"approvals,omitempty"`     // 0 with Movers: one
	Pinned       bool     `json:"pinned,omitempty"`        // never moves
}

// Span is a part of the week, in UTC, by consensus time. One that ends before it
// begins goes over midnight.
type Span struct {
	Days []int `json:"days,omitempty"` // 0 Sunday … 6 Saturday, on which it begins; none: all
	From int   `json:"from"`           // minutes after midnight
	To   int   `json:"to"`             // minutes after midnight, not itself in it
}

// Phase is how far a move has come.
type Phase string

// The phases of a move; the last five are ends.
const (
	Bidding   Phase = "bidding"
	Copying   Phase = "copying"
	Released  Phase = "released"
	Done      Phase = "done"
	Aborted   Phase = "aborted"
	Declined  Phase = "declined"
	Reclaimed Phase = "reclaimed"
	Nowhere   Phase = "nowhere" // no member was eligible
)

// Move is one attempt to move a machine.
type Move struct {
	ID       uint64    `json:"id"` // index of the Intent in the order
	Machine  string    `json:"machine"`
	Epoch    uint64    `json:"epoch"` // of the machine when the move began
	From     MemberID  `json:"from"`
	Only     MemberID  `json:"only,omitempty"` // the only candidate, if the owner named one
	To       MemberID  `json:"to,omitempty"`   // 0 until selected
	Phase    Phase     `json:"phase"`
	Reason   string    `json:"reason,omitempty"` // why it ended as it did
	Needs    Needs     `json:"needs"`
	Limits   Limits    `json:"limits"`            // what the mover asked for within the policy
	Bids     []*Bid    `json:"bids,omitempty"`    // in the order that they came
	Against  []Against `json:"against,omitempty"` // why each that was not selected was not, by member
	Forecast Forecast  `json:"forecast"`          // of the selected destination
	Accepted bool      `json:"accepted,omitempty"`
	Approved []string  `json:"approved,omitempty"` // accounts by whose approval it is made, sorted
	Reserved Room      `json:"reserved"`           // at To, until the move ends
	Round    uint64    `json:"round"`              // in which its phase began
	Deadline Time      `json:"deadline"`           // of its phase; 0: not known yet, see Advance
	Moved    int64     `json:"moved,omitempty"`    // bytes, by the last sign of life of the source
	Until    Time      `json:"until,omitempty"`    // when copying ends whatever the source says; 0 before its first sign of life

	IntentAt   Time `json:"intent_at"`
	SelectedAt Time `json:"selected_at,omitempty"`
	ReleasedAt Time `json:"released_at,omitempty"`
	EndedAt    Time `json:"ended_at,omitempty"`

	// After is how long after the destination's word that it is ready the owner
	// released the machine, by the owner's monotonic clock. The destination, which
	// spoke that word, knows by it how old the release is at most, whatever the
	// wall clocks say and however late it hears of it.
	After Time `json:"after,omitempty"`

	SelectedIndex uint64 `json:"selected_index,omitempty"`
	LeaseOver     bool   `json:"lease_over,omitempty"` // Reclaim holds
	Truth         *Truth `json:"truth,omitempty"`      // what it was, once reported
}

// Limits are what a move may cost the machine and the link.
type Limits struct {
	MaxDowntime int64 `json:"max_downtime"`        // milliseconds
	Bandwidth   int64 `json:"bandwidth,omitempty"` // bytes a second; 0: no cap
	PostCopy    bool  `json:"post_copy,omitempty"`
}

// Against is why a member was not selected.
type Against struct {
	Member  MemberID `json:"member"`
	Reasons []string `json:"reasons"`
}

// Room is what a machine takes at a member.
type Room struct {
	Memory int64 `json:"memory,omitempty"` // bytes
	Disk   int64 `json:"disk,omitempty"`   // bytes
	VCPUs  int64 `json:"vcpus,omitempty"`
	Moves  int64 `json:"moves,omitempty"`
}

// Needs are what a machine asks of a destination, as its owner knows them.
type Needs struct {
	Memory      int64    `json:"memory"` // bytes
	Disk        int64    `json:"disk"`   // bytes, at most
	VCPUs       int      `json:"vcpus"`
	Driver      string   `json:"driver"`
	Version     string   `json:"version,omitempty"` // of the driver at the source
	Accelerator string   `json:"accelerator,omitempty"`
	MachineType string   `json:"machine_type,omitempty"`
	CPUFeatures []string `json:"cpu_features,omitempty"` // that the guest was given; sorted
	MemoryBytes int64    `json:"memory_bytes"`           // of memory, after deduplication, expected to travel once
	DiskBytes   int64    `json:"disk_bytes"`             // of the machine's own overlay, expected to travel
	DirtyRate   int64    `json:"dirty_rate,omitempty"`   // bytes a second that the guest writes anew, as they would travel
	Hot         int64    `json:"hot_bytes,omitempty"`    // of memory, that it writes again and again, likewise; 0: not known
	DiskRate    int64    `json:"disk_rate,omitempty"`    // bytes a second that it writes to its disks
	Encodes     int64    `json:"encodes,omitempty"`      // bytes a second of memory, as it travels, that the owner's encoder makes; 0: not known
	// Paths are what the owner measured of the ways to other members; by member.
	Paths []Way `json:"paths,omitempty"`
}

// Way is a measured path to a member.
type Way struct {
	Member    MemberID `json:"member"`
	RTT       int64    `json:"rtt_us"`           // microseconds
	Bandwidth int64    `json:"bandwidth"`        // bytes a second
	Unsure    bool     `json:"unsure,omitempty"` // it may carry far more: no two measurements agree
}

// Forecast is what a move is expected to be.
type Forecast struct {
	Image     int64 `json:"image_bytes"`
	Disk      int64 `json:"disk_bytes"`
	Memory    int64 `json:"memory_bytes"`
	Millis    int64 `json:"ms"`     // from the selection to the release
	Low       int64 `json:"low_ms"` // of nine in ten like it, none is quicker … or slower
	High      int64 `json:"high_ms"`
	Pause     int64 `json:"pause_ms"`
	PauseLow  int64 `json:"pause_low_ms"`
	PauseHigh int64 `json:"pause_high_ms"`
	Bandwidth int64 `json:"bandwidth"` // of content, bytes a second, that it counts on
}

// Bytes is the sum of what would travel.
func (f Forecast) Bytes() int64 { return f.Image + f.Disk + f.Memory }

// Truth is what a move was.
type Truth struct {
	Image  int64 `json:"image_bytes"`
	Disk   int64 `json:"disk_bytes"`
	Memory int64 `json:"memory_bytes"`
	Millis int64 `json:"ms"`       // from the selection to the release; see Report
	Pause  int64 `json:"pause_ms"` // as the source's driver measured it
}

// Habit is what the moves of a machine were beside what had been predicted, in
// 1/1024: the next prediction is multiplied by it.
type Habit struct {
	Moves  uint64 `json:"moves"`
	Memory uint64 `json:"memory,omitempty"`
	Disk   uint64 `json:"disk,omitempty"`
	Pause  uint64 `json:"pause,omitempty"`
}

// Path is what moves between two members have shown.
type Path struct {
	From   MemberID `json:"from"`
	To     MemberID `json:"to"`
	Moves  uint64   `json:"moves"`
	Time   uint64   `json:"time"`   // what moves took over what was predicted, in 1/1024
	Spread uint64   `json:"spread"` // mean deviation from that, in 1/1024
}
