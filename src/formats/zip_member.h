#pragma once

#include <cstddef>
#include <functional>
#include <span>
#include <string>

namespace thimble {

// Hands one member of a zip archive to `write`, piece by piece, stored or deflated, and checks its length and CRC-32
// (PKWARE's APPNOTE.TXT; without ZIP64 and encryption). Every offset is checked. Throws Error beginning with `place`.
void extract_zip_member(std::span<const std::byte> archive, const std::string& place, const std::string& member,
                        const std::function<void(const void* data, size_t bytes)>& write);

}  // namespace thimble
