#include "serve/sandbox.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <string>
#include <thread>

#include "serve/http_client.h"
#include "serve/http_server.h"

namespace thimble {
namespace {

// The error of a call; 0 where it went through.
int error_of_call(const std::function<long()>& call) {
  errno = 0;
  return call() < 0 ? errno : 0;
}

sockaddr_in loopback(uint16_t port) {
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(port);
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return to;
}

int connect_to(int file, const sockaddr_in& to) {
  return error_of_call([&] { return connect(file, reinterpret_cast<const sockaddr*>(&to), sizeof(to)); });
}

// What could not be denied, as text; empty where all was.
std::string try_to_get_out(int open_socket, const sockaddr_in& target) {
  std::string got_out;
  const auto denied = [&](const char* what, int error) {
    if (error != EPERM) got_out += std::string(what) + ": " + std::strerror(error) + "\n";
  };
  denied("a TCP socket", error_of_call([] { return socket(AF_INET, SOCK_STREAM, 0); }));
  denied("a TCP socket of IPv6", error_of_call([] { return socket(AF_INET6, SOCK_STREAM, 0); }));
  denied("a UDP socket", error_of_call([] { return socket(AF_INET, SOCK_DGRAM, 0); }));
  denied("a netlink socket", error_of_call([] { return socket(AF_NETLINK, SOCK_RAW, 0); }));
  denied("connecting a socket that was there", connect_to(open_socket, target));
  denied("fast open", error_of_call([&] {
           return sendto(open_socket, "x", 1, MSG_FASTOPEN, reinterpret_cast<const sockaddr*>(&target), sizeof(target));
         }));
  const int local = socket(AF_UNIX, SOCK_STREAM, 0);
  sockaddr_un name{};
  name.sun_family = AF_UNIX;
  denied("a Unix socket",
         error_of_call([&] { return connect(local, reinterpret_cast<const sockaddr*>(&name), sizeof(name)); }));
  close(local);
  char room[256] = {};
  denied("io_uring", error_of_call([&] { return syscall(SYS_io_uring_setup, 1, room); }));
  return got_out;
}

TEST(Sandbox, ServesWhoConnectsAndConnectsToNobody) {
  int to_parent[2], to_child[2];
  ASSERT_EQ(pipe(to_parent), 0);
  ASSERT_EQ(pipe(to_child), 0);
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {  // what is denied stays denied: a process of its own
    std::string report;
    HttpServer server({.port = 0}, [](Exchange e) { e.respond({.body = "served"}); });
    const sockaddr_in target = loopback(server.port());
    const int open_socket = socket(AF_INET, SOCK_STREAM, 0);
    const int before = socket(AF_INET, SOCK_STREAM, 0);
    if (connect_to(before, target) != 0) report += "before, connecting must work\n";
    close(before);

    std::mutex mutex;
    std::condition_variable told;
    bool denied = false;
    std::string elsewhere = "not tried";
    std::thread older([&] {  // runs before the filter is loaded
      std::unique_lock lock(mutex);
      told.wait(lock, [&] { return denied; });
      elsewhere = try_to_get_out(open_socket, target);
    });
    try {
      deny_outgoing_connections();
    } catch (const std::exception& e) {
      report += std::string(e.what()) + "\n";
    }
    {
      const std::scoped_lock lock(mutex);
      denied = true;
    }
    told.notify_all();
    older.join();
    report += try_to_get_out(open_socket, target);
    report += elsewhere;
    const pid_t grandchild = fork();  // a program that it starts
    if (grandchild == 0) _exit(try_to_get_out(open_socket, target).empty() ? 0 : 1);
    int status = 0;
    waitpid(grandchild, &status, 0);
    if (status != 0) report += "a child got out\n";

    const std::string message = std::to_string(server.port()) + "\n" + report;
    if (write(to_parent[1], message.data(), message.size()) < 0) _exit(3);
    close(to_parent[1]);
    std::thread serving([&] { server.run(); });
    char byte;
    const ssize_t ignored = read(to_child[0], &byte, 1);
    server.stop();
    serving.join();
    _exit(ignored == 1 ? 0 : 4);
  }
  close(to_parent[1]);
  close(to_child[0]);
  std::string message;
  char buffer[4096];
  for (ssize_t n; (n = read(to_parent[0], buffer, sizeof(buffer))) > 0;) message.append(buffer, size_t(n));
  const size_t end = message.find('\n');
  ASSERT_NE(end, message.npos);
  EXPECT_EQ(message.substr(end + 1), "");
  {
    Client client = Client::tcp(static_cast<uint16_t>(std::stoi(message)));
    client.send("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    EXPECT_EQ(client.answer().body, "served");
  }
  ASSERT_EQ(write(to_child[1], "x", 1), 1);
  int status = -1;
  waitpid(child, &status, 0);
  EXPECT_EQ(status, 0);
  close(to_parent[0]);
  close(to_child[1]);
}

}  // namespace
}  // namespace thimble
