//! What the figures were measured on.

use std::fs;

/// Returns a line about processor, system and how busy the machine is now.
pub fn describe() -> String {
    let processor = read("/proc/cpuinfo");
    let model = processor.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let huge = read("/sys/kernel/mm/transparent_hugepage/enabled");
    let huge = huge.split_once('[').and_then(|(_, rest)| rest.split_once(']')).map_or("unknown", |(mode, _)| mode);
    format!(
        "{}, {cores} cores, Linux {}, huge pages: {huge}, load average at the start {}",
        model.trim_start_matches(['\t', ' ', ':']),
        read("/proc/sys/kernel/osrelease").trim(),
        load_average(),
    )
}

/// Returns how many processes wanted to run in the last minute; the benchmark itself is one.
pub fn load_average() -> String {
    read("/proc/loadavg").split(' ').next().unwrap_or_default().into()
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}
