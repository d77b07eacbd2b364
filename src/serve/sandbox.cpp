#include "serve/sandbox.h"

#include <fmt/core.h>
#include <seccomp.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <memory>

#include "core/error.h"

namespace thimble {
namespace {

[[noreturn]] void fail(const char* what, int error) {
  throw Error(
      fmt::format("outgoing connections can't be denied: {}: {}; this needs Linux with seccomp filters, leave "
                  "--offline away to go without",
                  what, std::strerror(error)));
}

using Filter = std::unique_ptr<void, decltype(&seccomp_release)>;

// All rules of one call must hold for it to be denied.
template <typename... Rule>
void deny(const Filter& filter, int call, Rule... rule) {
  if (call < 0) return;  // this architecture has no such call
  const int failed = seccomp_rule_add(filter.get(), SCMP_ACT_ERRNO(EPERM), call, sizeof...(rule), rule...);
  if (failed != 0) fail("a rule", -failed);
}

void load_filter() {
  const Filter filter(seccomp_init(SCMP_ACT_ALLOW), &seccomp_release);
  if (filter == nullptr) fail("a filter", ENOMEM);
  const int failed = seccomp_attr_set(filter.get(), SCMP_FLTATR_CTL_TSYNC, 1);  // threads that run already, too
  if (failed != 0) fail("a filter for all threads", -failed);
  deny(filter, SCMP_SYS(socket), SCMP_A0(SCMP_CMP_NE, AF_UNIX));
  // A filter can't see where a connection goes. An accepted socket could be let go (AF_UNSPEC) and connected anew.
  deny(filter, SCMP_SYS(connect));
  deny(filter, SCMP_SYS(sendto), SCMP_A4(SCMP_CMP_NE, 0));  // an address: MSG_FASTOPEN connects
  // Ways around: calls that no filter sees, and the sockets of other processes.
  deny(filter, SCMP_SYS(io_uring_setup));
  deny(filter, SCMP_SYS(pidfd_getfd));
  deny(filter, SCMP_SYS(ptrace));
  deny(filter, SCMP_SYS(process_vm_writev));
  const int loaded = seccomp_load(filter.get());
  if (loaded != 0) fail("the filter is refused", -loaded);
}

// linux/landlock.h of the oldest system that this builds on knows no networks.
struct LandlockRules {
  uint64_t files, network, scopes;
};
constexpr uint64_t kBindTcp = 1, kConnectTcp = 2, kAbstractUnixSockets = 1;
constexpr long kVersionOnly = 1;

void load_landlock() {
#if defined(__NR_landlock_create_ruleset)
  const long version = syscall(__NR_landlock_create_ruleset, nullptr, 0, kVersionOnly);
  if (version < 4) return;  // none, or without networks: the filter is enough
  const LandlockRules rules{0, kBindTcp | kConnectTcp, version >= 6 ? kAbstractUnixSockets : 0};
  const size_t size = version >= 6 ? sizeof(rules) : offsetof(LandlockRules, scopes);
  const long set = syscall(__NR_landlock_create_ruleset, &rules, size, 0);
  if (set < 0) fail("Landlock", errno);
  const long failed = syscall(__NR_landlock_restrict_self, set, 0);
  const int error = errno;
  close(static_cast<int>(set));
  if (failed != 0) fail("Landlock", error);
#endif
}

void check() {
  for (const int family : {AF_INET, AF_INET6}) {
    const int made = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (made < 0 && errno == EPERM) continue;
    if (made >= 0) close(made);
    throw Error(
        "outgoing connections can't be denied: the filter is loaded and does not hold; leave --offline away to "
        "go without");
  }
}

}  // namespace

void deny_outgoing_connections() {
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) fail("no_new_privs", errno);
  load_landlock();
  load_filter();
  check();
}

}  // namespace thimble
