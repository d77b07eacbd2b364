#pragma once

namespace thimble {

// From now on neither this process, on any of its threads, nor a program that it starts can send anything to anybody
// who did not connect first: no new socket but Unix ones, and no connect() at all, Unix sockets included, because what
// listens there (a resolver, a container's daemon) could be asked to send. Sockets that listen go on accepting. Calls
// that are denied fail with EPERM. It can't be taken back, and privileges can't be gained any more (no_new_privs).
//
// A seccomp filter does it, over all threads; where the kernel has Landlock's rules for networks (Linux 6.7), those
// stand behind it for the calling thread and those that it starts.
//
// Call it once the server listens and its models are there. Throws Error where the kernel can't do it, or where a trial
// shows that it does not hold.
void deny_outgoing_connections();

}  // namespace thimble
