#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>
#include <string>

namespace thimble {

// SHA-256 (FIPS 180-4) of bytes that come in pieces.
class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(const Sha256&) = delete;
  Sha256& operator=(const Sha256&) = delete;

  void update(const void* data, size_t bytes);
  std::string finish();  // 64 lower-case hexadecimal digits; call it once

 private:
  struct Context;
  std::unique_ptr<Context> context_;
};

std::string sha256(const void* data, size_t bytes);
std::string sha256_file(const std::filesystem::path& path);  // throws Error where the file can't be read

}  // namespace thimble
