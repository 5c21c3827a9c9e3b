package order

// LogFile is the file that events are written to now, and how many bytes of it survive
// a power cut for certain. Earlier files survive as they are. It may be called from any
// goroutine.
func (l *Loop) LogFile() (path string, synced int64) { return l.events.SyncedSize() }
