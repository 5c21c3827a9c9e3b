# Makes what spin prints of a trail readable: a line for each step, with who took it, its
# line in the model, and what it changed.
BEGIN {
	split("REST SRC STOPPED SAY DECIDE WAIT ARR HAVE GO CONT TRY OBEY DOWN", pc)
	split("none paused frozen RUN", q)
	split("- here released arriving loaded", step)
	split("here copying released", phase)
}
function word(name, v) {
	if (name ~ /^pc/) return pc[v + 1]
	if (name ~ /^q\[/) return q[v + 1]
	if (name ~ /^step/) return step[v + 1]
	if (name ~ /^lg/) return phase[v % 4 + 1] ":" int(v / 4) % 4 "/" int(v / 16) % 4 (v >= 64 ? " by reclaim" : "")
	return v
}
function flush(  k, line) {
	for (k in now) if (now[k] != shown[k]) {
		if (k !~ /^(lg|top|seen|since)/ || k ~ /^seen/) line = line " " k "=" word(k, now[k])
		shown[k] = now[k]
	}
	if (head != "") print head line
}
/^ *[0-9]+:\tproc/ {
	n = $1; who = $4; sub(/.*\(/, "", who); sub(/:.*/, "", who)
	at = $0; sub(/.*handover\.pml:/, "", at); sub(/ .*/, "", at)
	if (n != last) {
		flush()
		last = n
		id = $3
		head = sprintf("%4s %-10s line %-4s", n, who (id >= 3 ? (id - 3) % 3 : ""), at)
	}
	next
}
match($0, /^[ \t]*[a-z]+(\[[0-9]+\])? = [0-9]+/) { k = $1; now[k] = $3; next }
/assert/ { flush(); head = ""; print; exit }
