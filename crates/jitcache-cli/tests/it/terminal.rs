//! Terminals, and what is none.

use std::process::{Command, Stdio};

use crate::kit::{golden, jitcache};

#[test]
fn whoever_stops_reading_ends_the_program_quietly() {
    let scratch = golden();
    let mut child = Command::new(env!("CARGO_BIN_EXE_jitcache"))
        .arg("list")
        .arg(scratch.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), &output.stderr[..]), (Some(0), &b""[..]));
}

#[test]
fn colours_are_there_when_they_are_asked_for() {
    let scratch = golden();
    let dir = scratch.path().to_str().unwrap();
    for (when, is_colored) in [("always", true), ("never", false), ("auto", false)] {
        let output = jitcache(&["list", dir, "--color", when]);
        assert_eq!(output.stdout.contains(&0x1b), is_colored, "{when}");
    }
}

/// Runs a command in a terminal that is so wide, and returns its exit code and what the terminal was sent.
#[cfg(unix)]
fn in_terminal(width: u32, prefix: &str, arguments: &str) -> Option<(Option<i32>, String)> {
    let line = format!("stty cols {width} rows 24; {prefix} '{}' {arguments}", env!("CARGO_BIN_EXE_jitcache"));
    let mut script = Command::new("script");
    script.args(["-qec", &line, "/dev/null"]).env_remove("NO_COLOR").env_remove("COLUMNS").stdin(Stdio::null());
    let output = script.output().ok()?;
    Some((output.status.code(), String::from_utf8(output.stdout).unwrap()))
}

#[test]
#[cfg(unix)] // by script(1)
fn a_terminal_has_colours_and_progress_and_nothing_wider_than_itself() {
    use jitcache_testkit::skip::skip;

    use crate::kit::damaged;

    let scratch = damaged();
    let dir = scratch.path().display();
    for (width, prefix, options, is_colored) in [
        (80, "", "", true),
        (60, "", "", true),
        (200, "NO_COLOR=1", "", false),
        (80, "", "--color never", false),
        (80, "NO_COLOR=1", "--color always", true),
    ] {
        for (command, has_progress) in [
            (format!("list '{dir}'"), true),
            (format!("verify --all '{dir}'"), true),
            (format!("stats '{dir}' --budget 1K"), true),
            (format!("prune '{dir}' --unsound --dry-run"), true),
            (format!("why '{dir}' 03"), false),
            (format!("show '{dir}' 01"), false),
        ] {
            let Some((code, printed)) = in_terminal(width, prefix, &format!("{options} {command}")) else {
                return skip("a_terminal_has_colours_and_progress", "there is no script(1)");
            };
            assert!(code.is_some_and(|code| code <= 1), "{command}: {printed:?}");
            let is_painted = printed.contains("\x1b[3") || printed.contains("\x1b[2m") || command.starts_with("why");
            assert_eq!(is_painted, is_colored || command.starts_with("why"), "{width} {prefix} {options} {command}");
            assert_eq!(printed.contains(" of 15 entries"), has_progress, "{command}: {printed:?}");
            // A message is left as it is: paths in it are copied.
            for line in shown(&printed).iter().filter(|line| !line.starts_with("jitcache: ")) {
                assert!(line.chars().count() <= width as usize, "{width} {command}: {line:?}");
            }
        }
    }
    let output = jitcache(&["verify", scratch.path().to_str().unwrap(), "--all"]);
    assert!(!String::from_utf8_lossy(&output.stderr).contains("of 15"));
}

/// Returns the lines that stay on a terminal, without their colours: what is sent after a carriage return takes the
/// place of what stood there.
#[cfg(unix)]
fn shown(printed: &str) -> Vec<String> {
    let mut lines = Vec::new();
    for line in printed.replace("\r\n", "\n").split('\n') {
        let mut parts = line.rsplit('\r').next().unwrap().split('\x1b');
        let first = parts.next().unwrap().to_owned();
        lines.push(parts.fold(first, |line, part| line + part.split_once(['m', 'K']).unwrap().1));
    }
    lines
}
