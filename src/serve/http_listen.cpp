#include "serve/http_listen.h"

#include <fmt/core.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <optional>
#include <sstream>

#include "core/error.h"

namespace thimble {
namespace {

namespace fs = std::filesystem;

constexpr int kBacklog = 4096;  // the kernel takes less where net.core.somaxconn says so

Socket stream_socket(int family) {
  Socket made(socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (made.get() < 0) throw Error(fmt::format("can't open a socket: {}", std::strerror(errno)));
  return made;
}

// The inode of the socket that listens at a TCP port, as /proc has it; empty where there is none.
std::string listening_inode(uint16_t port) {
  for (const char* table : {"/proc/net/tcp", "/proc/net/tcp6"}) {
    std::ifstream file(table);
    std::string line;
    std::getline(file, line);
    while (std::getline(file, line)) {
      std::istringstream fields(line);
      std::string number, local, remote, state, queues, timer, retransmits, user, timeout, inode;
      fields >> number >> local >> remote >> state >> queues >> timer >> retransmits >> user >> timeout >> inode;
      const size_t colon = local.rfind(':');
      if (state == "0A" && colon != local.npos && local.substr(colon + 1) == fmt::format("{:04X}", port)) return inode;
    }
  }
  return {};
}

// "nginx, process 812", or empty where it is hidden (another user's) or there is none.
std::string holder_of(uint16_t port) {
  const std::string inode = listening_inode(port);
  if (inode.empty()) return {};
  const std::string wanted = fmt::format("socket:[{}]", inode);
  std::error_code ignored;
  for (const auto& process : fs::directory_iterator("/proc", ignored)) {
    const std::string id = process.path().filename();
    if (id.find_first_not_of("0123456789") != id.npos) continue;
    std::error_code denied;
    for (fs::directory_iterator file(process.path() / "fd", denied), end; !denied && file != end;
         file.increment(denied)) {
      std::error_code gone;
      if (fs::read_symlink(file->path(), gone) != wanted) continue;
      std::string name;
      std::getline(std::ifstream(process.path() / "comm"), name);
      return fmt::format("{}, process {}", name, id);
    }
  }
  return {};
}

[[noreturn]] void throw_taken(const std::string& address, uint16_t port) {
  const std::string holder = holder_of(port);
  throw Error(fmt::format("{} port {} is taken{}: end that program or choose another port", address, port,
                          holder.empty() ? "" : " by " + holder));
}

Socket listen_at_path(const std::string& path) {
  sockaddr_un name{};
  name.sun_family = AF_UNIX;
  if (path.size() >= sizeof(name.sun_path)) {
    throw Error(fmt::format("{}: a Unix socket's path may have {} bytes at most", path, sizeof(name.sun_path) - 1));
  }
  std::memcpy(name.sun_path, path.c_str(), path.size() + 1);
  const auto* address = reinterpret_cast<const sockaddr*>(&name);

  std::error_code ignored;
  if (fs::is_socket(path, ignored)) {
    const Socket probe = stream_socket(AF_UNIX);
    if (connect(probe.get(), address, sizeof(name)) == 0 || errno == EAGAIN) {
      throw Error(fmt::format("{} is taken: another server listens there; end it or choose another path", path));
    }
    if (errno == ECONNREFUSED) fs::remove(path, ignored);  // its server ended without removing it
  }
  Socket made = stream_socket(AF_UNIX);
  fchmod(made.get(), 0660);  // before it can be seen; the umask may take more away
  if (bind(made.get(), address, sizeof(name)) != 0) {
    throw Error(fmt::format("can't listen at {}: {}; choose a path in a folder that this user may write", path,
                            std::strerror(errno)));
  }
  if (listen(made.get(), kBacklog) != 0) throw Error(fmt::format("can't listen at {}: {}", path, std::strerror(errno)));
  return made;
}

}  // namespace

Socket::~Socket() {
  if (file_ >= 0) close(file_);
}

Socket listen_at(const std::string& address, uint16_t port) {
  if (address.starts_with('/')) return listen_at_path(address);
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV;
  addrinfo* found = nullptr;
  std::string host = address;
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') host = host.substr(1, host.size() - 2);
  const int failed = getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &found);
  if (failed != 0) {
    throw Error(
        fmt::format("'{}' is no address of this machine ({}); take 127.0.0.1, ::1, 0.0.0.0 or a path of a Unix "
                    "socket",
                    address, gai_strerror(failed)));
  }
  const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> owner(found, &freeaddrinfo);
  Socket made = stream_socket(found->ai_family);
  const int on = 1;
  const int off = 0;
  setsockopt(made.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));  // a port that a restart left in TIME_WAIT
  if (found->ai_family == AF_INET6) setsockopt(made.get(), IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
  setsockopt(made.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));  // accepted sockets inherit it
  if (bind(made.get(), found->ai_addr, found->ai_addrlen) != 0 || listen(made.get(), kBacklog) != 0) {
    if (errno == EADDRINUSE) throw_taken(address, port);
    const char* mend = errno == EACCES          ? "; ports below 1024 are for root, take a higher one"
                       : errno == EADDRNOTAVAIL ? "; it is no address of this machine"
                                                : "";
    throw Error(fmt::format("can't listen at {} port {}: {}{}", address, port, std::strerror(errno), mend));
  }
  return made;
}

uint16_t bound_port(int socket) {
  sockaddr_storage name{};
  socklen_t size = sizeof(name);
  if (getsockname(socket, reinterpret_cast<sockaddr*>(&name), &size) != 0) return 0;
  if (name.ss_family == AF_INET) return ntohs(reinterpret_cast<const sockaddr_in&>(name).sin_port);
  if (name.ss_family == AF_INET6) return ntohs(reinterpret_cast<const sockaddr_in6&>(name).sin6_port);
  return 0;
}

std::string peer_address(int socket) {
  sockaddr_storage name{};
  socklen_t size = sizeof(name);
  char text[NI_MAXHOST];
  if (getpeername(socket, reinterpret_cast<sockaddr*>(&name), &size) != 0 || name.ss_family == AF_UNIX ||
      getnameinfo(reinterpret_cast<const sockaddr*>(&name), size, text, sizeof(text), nullptr, 0, NI_NUMERICHOST) !=
          0) {
    return "unix";
  }
  const std::string address = text;
  static constexpr std::string_view kMapped = "::ffff:";  // an IPv4 client of an IPv6 socket
  return address.starts_with(kMapped) ? address.substr(kMapped.size()) : address;
}

size_t allow_files(size_t count) {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= count) return count;
  const rlim_t before = limit.rlim_cur;
  limit.rlim_cur = std::min<rlim_t>(count, limit.rlim_max);
  return setrlimit(RLIMIT_NOFILE, &limit) == 0 ? limit.rlim_cur : before;
}

}  // namespace thimble
