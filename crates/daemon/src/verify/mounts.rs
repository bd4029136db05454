//! Mounts below banger's directories. It makes none there that others see.

use std::path::{Path, PathBuf};

use banger_api::verify::{Kind, Oddity, Problem};

use super::{oddity, with_fix};

/// Every mount below these directories by a `mountinfo` (proc_pid_mountinfo(5)). The directories themselves may be mounts.
pub(super) fn below(mountinfo: &Path, directories: &[&Path]) -> Vec<Oddity> {
    let text = std::fs::read_to_string(mountinfo).unwrap_or_default();
    let points = text.lines().filter_map(|line| {
        let mut fields = line.split(' ');
        let point = unescape(fields.nth(4)?);
        let kind = line.split(" - ").nth(1)?.split(' ').next()?;
        Some((point, kind.to_owned()))
    });
    let is_below =
        |point: &Path| directories.iter().any(|directory| point.starts_with(directory) && point != *directory);
    points
        .filter(|(point, _)| is_below(point))
        .map(|(point, kind)| {
            let point = point.display().to_string();
            let found = oddity(
                Kind::Mount,
                Problem::Foreign,
                &point,
                format!("a file system {kind} that banger did not mount"),
            );
            with_fix(found, format!("umount {point}"))
        })
        .collect()
}

/// A path as it is written there: space, tab, newline and backslash are `\` and three octal digits.
fn unescape(text: &str) -> PathBuf {
    let mut path = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        path += before;
        match after.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) if byte.is_ascii() => {
                path.push(byte.into());
                rest = &after[3..];
            }
            _ => {
                path.push('\\');
                rest = after;
            }
        }
    }
    (path + rest).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_mounted_below_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("mountinfo");
        let text = "22 1 254:0 / / rw - ext4 /dev/vda rw\n\
                    30 22 0:25 / /var/lib/banger rw,relatime shared:5 - xfs /dev/vdb rw\n\
                    31 30 0:26 / /var/lib/banger/vms/a\\040b rw master:1 - tmpfs tmpfs rw\n\
                    32 22 0:27 / /var/lib/bangerx rw - tmpfs tmpfs rw\nrubbish\n";
        std::fs::write(&file, text).unwrap();
        let found = below(&file, &[Path::new("/var/lib/banger"), Path::new("/run/banger")]);
        let told: Vec<_> = found.iter().map(|oddity| (oddity.which.as_str(), oddity.problem)).collect();
        assert_eq!(told, [("/var/lib/banger/vms/a b", Problem::Foreign)]);
        assert!(found[0].found.contains("tmpfs") && found[0].fix.as_deref() == Some("umount /var/lib/banger/vms/a b"));
    }
}
