"""The seam of the simulator: threads, locks, timers and clocks under one seeded schedule."""
