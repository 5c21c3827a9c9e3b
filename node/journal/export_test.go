package journal

// Flush writes what was appended, as Run does after a while.
func (j *Journal) Flush() error { return j.flush() }

// Abandon lets go of the files as the death of the process does.
func (j *Journal) Abandon() {
	j.mu.Lock()
	j.closed = true
	j.mu.Unlock()
	j.writing.Lock()
	defer j.writing.Unlock()
	j.ended = true
	if j.f != nil {
		j.f.Close()
		j.f = nil
	}
}

// Waiting is how many bytes are not on the disk yet.
func (j *Journal) Waiting() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.bytes
}
