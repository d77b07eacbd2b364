#include "formats/zip_member.h"

#include <fmt/core.h>
#include <zlib.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <vector>

#include "core/error.h"

namespace thimble {
namespace {

constexpr uint32_t kEndSignature = 0x06054b50, kEntrySignature = 0x02014b50, kLocalSignature = 0x04034b50;
constexpr size_t kEndSize = 22, kEntrySize = 46, kLocalSize = 30, kLongestComment = 65535;

class Archive {
 public:
  Archive(std::span<const std::byte> bytes, const std::string& place) : bytes_(bytes), place_(place) {}

  [[noreturn]] void fail(const std::string& what) const {
    throw Error(fmt::format("{}: {}; the archive is damaged or of an unknown kind, fetch it again", place_, what));
  }
  template <class T>
  T at(size_t offset) const {
    if (offset > bytes_.size() || bytes_.size() - offset < sizeof(T)) fail("ends inside a zip header");
    T value;
    std::memcpy(&value, bytes_.data() + offset, sizeof(T));
    return value;
  }
  std::span<const std::byte> range(size_t offset, size_t size) const {
    if (offset > bytes_.size() || size > bytes_.size() - offset) fail("a zip member lies beyond the end of the file");
    return bytes_.subspan(offset, size);
  }
  size_t find_end() const {
    if (bytes_.size() < kEndSize) fail("is too short for a zip archive");
    const size_t first = bytes_.size() - kEndSize;
    for (size_t back = 0; back <= std::min(first, kLongestComment); ++back)
      if (at<uint32_t>(first - back) == kEndSignature) return first - back;
    fail("has no zip directory");
  }

 private:
  std::span<const std::byte> bytes_;
  const std::string& place_;
};

struct Member {
  uint16_t flags = 0, method = 0;
  uint32_t crc = 0, stored = 0, size = 0;
  size_t local = 0;
};

Member find_member(const Archive& archive, const std::string& name) {
  const size_t end = archive.find_end();
  const auto count = archive.at<uint16_t>(end + 10);
  size_t at = archive.at<uint32_t>(end + 16);
  for (uint16_t i = 0; i < count; ++i) {
    if (archive.at<uint32_t>(at) != kEntrySignature) archive.fail("has a broken zip directory");
    const auto name_size = archive.at<uint16_t>(at + 28);
    const auto found = archive.range(at + kEntrySize, name_size);
    if (found.size() == name.size() && std::memcmp(found.data(), name.data(), name.size()) == 0) {
      return {archive.at<uint16_t>(at + 8),  archive.at<uint16_t>(at + 10), archive.at<uint32_t>(at + 16),
              archive.at<uint32_t>(at + 20), archive.at<uint32_t>(at + 24), archive.at<uint32_t>(at + 42)};
    }
    at += kEntrySize + name_size + archive.at<uint16_t>(at + 30) + archive.at<uint16_t>(at + 32);
  }
  archive.fail(fmt::format("has no member '{}'", name));
}

}  // namespace

void extract_zip_member(std::span<const std::byte> bytes, const std::string& place, const std::string& name,
                        const std::function<void(const void* data, size_t bytes)>& write) {
  const Archive archive(bytes, place);
  const Member member = find_member(archive, name);
  if ((member.flags & 1) != 0 || member.stored == 0xffffffff || member.size == 0xffffffff)
    archive.fail(fmt::format("member '{}' is encrypted or larger than 4 GB", name));
  if (archive.at<uint32_t>(member.local) != kLocalSignature) archive.fail("has a broken zip member header");
  const size_t start = member.local + kLocalSize + archive.at<uint16_t>(member.local + 26) +
                       archive.at<uint16_t>(member.local + 28);
  const auto stored = archive.range(start, member.stored);

  uint64_t size = 0;
  uLong crc = crc32(0, nullptr, 0);
  const auto take = [&](const void* data, size_t count) {
    size += count;
    if (size > member.size) archive.fail(fmt::format("member '{}' is longer than its header says", name));
    crc = crc32_z(crc, static_cast<const Bytef*>(data), count);
    write(data, count);
  };
  if (member.method == 0) {
    take(stored.data(), stored.size());
  } else if (member.method == 8) {
    z_stream stream{};
    if (inflateInit2(&stream, -MAX_WBITS) != Z_OK) throw std::bad_alloc();
    const std::unique_ptr<z_stream, int (*)(z_stream*)> owned(&stream, inflateEnd);
    stream.next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(stored.data()));
    stream.avail_in = static_cast<uInt>(stored.size());
    std::vector<Bytef> out(size_t{1} << 20);
    int state = Z_OK;
    while (state == Z_OK) {
      stream.next_out = out.data();
      stream.avail_out = static_cast<uInt>(out.size());
      state = inflate(&stream, Z_NO_FLUSH);
      if (state != Z_OK && state != Z_STREAM_END) archive.fail(fmt::format("member '{}' can't be unpacked", name));
      take(out.data(), out.size() - stream.avail_out);
    }
  } else {
    archive.fail(fmt::format("member '{}' is packed by method {}", name, member.method));
  }
  if (size != member.size || crc != member.crc)
    archive.fail(fmt::format("member '{}' does not match its length and checksum", name));
}

}  // namespace thimble
