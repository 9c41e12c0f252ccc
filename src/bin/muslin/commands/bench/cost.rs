//! What a part of a run cost this process.

use std::time::{Duration, Instant};

/// From here on it is counted.
#[derive(Debug)]
pub(crate) struct Meter {
    began: Instant,
    cpu: Duration,
}

/// What it came to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cost {
    pub(crate) wall: Duration,
    /// User and system time of all threads.
    pub(crate) cpu: Duration,
    /// The peak since the process began, in KiB; `None` where /proc does not tell.
    pub(crate) max_rss_kb: Option<u64>,
}

impl Meter {
    pub(crate) fn start() -> Self {
        Self { cpu: cpu(), began: Instant::now() }
    }

    pub(crate) fn stop(&self) -> Cost {
        let wall = self.began.elapsed();
        let cpu = cpu().saturating_sub(self.cpu);
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        Cost { wall, cpu, max_rss_kb: peak(&status) }
    }
}

/// User and system time of all threads so far, ended ones too.
fn cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.try_into().unwrap_or(0), time.tv_nsec.try_into().unwrap_or(0))
}

/// The peak of a `/proc/PID/status`.
fn peak(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_is_the_high_water_mark() {
        assert_eq!(peak("Name:\tx\nVmHWM:\t    8120 kB\nVmRSS:\t 4 kB\n"), Some(8120));
        assert_eq!(peak("VmRSS:\t 4 kB\n"), None);
    }
}
