#pragma once

namespace mobius {

/// Blocks SIGINT and SIGTERM for this thread and all that it starts later, so that they wait for
/// `wait_for_shutdown_signal`, and ignores SIGPIPE. Call before any thread exists.
void block_shutdown_signals();

/// Returns the number of the first SIGINT or SIGTERM. From then on a second one ends the process at
/// once.
int wait_for_shutdown_signal();

}  // namespace mobius
