//! What the figures were measured on.

use std::fs;

/// Returns a line about processor, system and how busy the machine is now.
pub fn describe() -> String {
    let processor = read("/proc/cpuinfo");
    let field = |name: &str| {
        let line = processor.lines().find_map(|line| line.strip_prefix(name)?.trim_start().strip_prefix(':'));
        line.unwrap_or_default().trim().to_owned()
    };
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let huge = read("/sys/kernel/mm/transparent_hugepage/enabled");
    let huge = huge.split_once('[').and_then(|(_, rest)| rest.split_once(']')).map_or("unknown", |(mode, _)| mode);
    let flags = field("flags");
    let has = |feature: &&str| flags.split(' ').any(|flag| flag == *feature);
    format!(
        "{} (family {}, model {}, stepping {}; {}), {cores} cores, Linux {}, huge pages: {huge}, load average at the start {}",
        field("model name"),
        field("cpu family"),
        field("model"),
        field("stepping"),
        FEATURES.into_iter().filter(has).collect::<Vec<_>>().join(", "),
        read("/proc/sys/kernel/osrelease").trim(),
        load_average(),
    )
}

/// What digests and checksums are made with.
const FEATURES: [&str; 5] = ["sse4_2", "aes", "vaes", "pclmulqdq", "avx512f"];

/// Returns how many processes wanted to run in the last minute; the benchmark itself is one.
pub fn load_average() -> String {
    read("/proc/loadavg").split(' ').next().unwrap_or_default().into()
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}
