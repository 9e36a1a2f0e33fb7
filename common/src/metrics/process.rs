//! What the operating system says of this process.
//!
//! Read when somebody scrapes. Where it says nothing the figure is left out.

/// Bytes of the process that are in RAM.
pub(super) fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_takes_memory() {
        let bytes = resident_bytes().expect("/proc is there");
        assert!(bytes > 1 << 20, "{bytes}");
    }
}
