#pragma once

#include <functional>

#include "data/row.h"

namespace thimble {

// Takes earlier exchanges (a user's turn and all that follows up to the user's next), the oldest first, out of a row
// until it fits. The system message, the last exchange and the answers stay as they are. False where that doesn't
// suffice; the row is then without its earlier exchanges.
bool cut_earlier_turns(Row& row, const std::function<bool(const Row&)>& fits);

}  // namespace thimble
