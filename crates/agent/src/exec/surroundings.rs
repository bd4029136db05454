//! What a command can have of its caller's surroundings: the kind of terminal, the language, the time zone. What the guest
//! does not know is replaced by something that it does, so that no program complains of it.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use banger_protocol::call::TimeZone;

/// The terminal that all others of today resemble.
const USUAL_TERMINAL: &str = "xterm-256color";

/// Where terminals are described (terminfo(5)), below the root; a user's own descriptions are in `.terminfo`.
const TERMINALS: [&str; 4] = ["etc/terminfo", "lib/terminfo", "usr/lib/terminfo", "usr/share/terminfo"];

/// The locale that every glibc since 2.35 has built in, and Debian's had before.
const USUAL_LOCALE: &str = "C.UTF-8";

/// The variables that name locales (locale(7)).
const LOCALE_VARIABLES: [&str; 14] = [
    "LANG",
    "LC_ALL",
    "LC_ADDRESS",
    "LC_COLLATE",
    "LC_CTYPE",
    "LC_IDENTIFICATION",
    "LC_MEASUREMENT",
    "LC_MESSAGES",
    "LC_MONETARY",
    "LC_NAME",
    "LC_NUMERIC",
    "LC_PAPER",
    "LC_TELEPHONE",
    "LC_TIME",
];

/// More than any name here has.
const MAX_NAME: usize = 128;

/// The value of `TERM`: the caller's, where the guest has a description of it or has none of any terminal.
pub fn terminal(term: &str, root: &Path, home: &Path) -> String {
    let places = || TERMINALS.iter().map(|place| root.join(place)).chain([home.join(".terminfo")]);
    let described = |name: &str| {
        // By the first letter, or by its number in hexadecimal where letters have no case (term(5)).
        let Some(first) = name.bytes().next().filter(|_| is_plain(name, b"")) else { return false };
        places().any(|place| {
            place.join(char::from(first).to_string()).join(name).exists()
                || place.join(format!("{first:02x}")).join(name).exists()
        })
    };
    if described(term) || (is_plain(term, b"") && !described(USUAL_TERMINAL)) {
        return term.to_owned();
    }
    USUAL_TERMINAL.to_owned()
}

/// The variables of the caller's locale, with names of locales that the guest has. `given` are the variables that win: what
/// would overrule one of them is left out.
pub fn locale(
    caller: &BTreeMap<String, String>,
    given: &BTreeMap<String, String>,
    root: &Path,
) -> Vec<(String, String)> {
    if ["LANG", "LC_ALL"].iter().any(|name| given.contains_key(*name)) {
        return Vec::new();
    }
    let finer = given.keys().any(|name| name.starts_with("LC_"));
    let known = caller.iter().filter(|(name, value)| LOCALE_VARIABLES.contains(&name.as_str()) && !value.is_empty());
    let mut variables: BTreeMap<String, String> = known
        .map(|(name, value)| (name.clone(), if has_locale(value, root) { value } else { USUAL_LOCALE }.to_owned()))
        .collect();
    if finer && let Some(all) = variables.remove("LC_ALL") {
        variables = BTreeMap::from([("LANG".to_owned(), all)]);
    }
    variables.into_iter().collect()
}

/// The value of `TZ`: the zone's name where the guest has the database, else its rule.
pub fn time_zone(zone: &TimeZone, root: &Path) -> Option<String> {
    let known = |name: &&String| {
        let plain = !name.starts_with('/') && name.split('/').all(|part| is_plain(part, b""));
        plain && root.join("usr/share/zoneinfo").join(name).is_file()
    };
    // TZ can also name a file, by a path or after a colon (tzset(3)): a rule is neither.
    let is_rule = |rule: &&String| {
        rule.starts_with(|first: char| first.is_ascii_alphabetic() || first == '<')
            && rule.contains(|letter: char| letter.is_ascii_digit())
            && is_plain(rule.trim_start_matches('<'), b",/:<>")
    };
    zone.name.as_ref().filter(known).or(zone.rule.as_ref().filter(is_rule)).cloned()
}

/// Whether the guest's C library finds the locale.
fn has_locale(name: &str, root: &Path) -> bool {
    if matches!(name, "C" | "POSIX" | "C.UTF-8" | "C.utf8") {
        return true;
    }
    if !is_plain(name, b"@") {
        return false;
    }
    let locales = root.join("usr/lib/locale");
    let names = [name.to_owned(), normalized(name)];
    names.iter().any(|name| locales.join(name).is_dir())
        || in_archive(&locales.join("locale-archive"), &names).unwrap_or(false)
}

/// As the C library looks for it: the code set in lower case, letters and digits only.
fn normalized(name: &str) -> String {
    let (name, modifier) = name.split_once('@').map_or((name, None), |(name, modifier)| (name, Some(modifier)));
    let Some((language, codes)) = name.split_once('.') else { return name.to_owned() + &suffix(modifier) };
    let mut codes: String =
        codes.chars().filter(char::is_ascii_alphanumeric).map(|letter| letter.to_ascii_lowercase()).collect();
    if codes.bytes().all(|byte| byte.is_ascii_digit()) {
        codes.insert_str(0, "iso");
    }
    format!("{language}.{codes}{}", suffix(modifier))
}

fn suffix(modifier: Option<&str>) -> String {
    modifier.map(|modifier| format!("@{modifier}")).unwrap_or_default()
}

/// Whether a locale archive has one of the names: a header of numbers, a hash table of names, and the names themselves
/// (glibc, locale/locarchive.h). Nothing where it is no such archive.
fn in_archive(archive: &Path, names: &[String]) -> Option<bool> {
    const MAGIC: u32 = 0xde02_0109;
    const ENTRY: usize = 12;
    const LARGEST: u32 = 1 << 20;
    let file = File::open(archive).ok()?;
    let read = |offset: u32, length: u32| {
        let mut bytes = vec![0; usize::try_from(length).ok()?];
        (length <= LARGEST).then(|| file.read_exact_at(&mut bytes, offset.into()).ok())??;
        Some(bytes)
    };
    let word = |bytes: &[u8], at: usize| Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let head = read(0, 32)?;
    if word(&head, 0)? != MAGIC {
        return None;
    }
    let (table, entries) = (word(&head, 8)?, word(&head, 16)?);
    let (strings, used) = (word(&head, 20)?, word(&head, 24)?);
    let table = read(table, entries.checked_mul(12)?)?;
    let text = read(strings, used)?;
    let found = table.chunks_exact(ENTRY).any(|entry| {
        // One that was removed has a name but no record.
        let (Some(at), Some(1..)) = (word(entry, 4), word(entry, 8)) else { return false };
        let name = at.checked_sub(strings).and_then(|at| text.get(usize::try_from(at).ok()?..));
        let name = name.and_then(|text| text.split(|&byte| byte == 0).next());
        name.is_some_and(|found| names.iter().any(|name| name.as_bytes() == found))
    });
    Some(found)
}

/// Whether a word can only be a name: no path, nothing that a program would read as more. `also` are bytes beside the usual.
fn is_plain(name: &str, also: &[u8]) -> bool {
    let usual = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.+".contains(&byte) || also.contains(&byte);
    !name.is_empty() && name.len() <= MAX_NAME && !name.starts_with('.') && name.bytes().all(usual)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn root(files: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for file in files {
            let path = dir.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        dir
    }

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
    }

    #[test]
    fn a_terminal_that_nobody_describes_is_the_usual_one() {
        let dir = root(&["lib/terminfo/x/xterm-256color", "usr/share/terminfo/73/screen", "home/.terminfo/m/mine"]);
        let term = |name: &str| terminal(name, dir.path(), &dir.path().join("home"));
        for known in ["xterm-256color", "screen", "mine"] {
            assert_eq!(term(known), known);
        }
        for unknown in ["xterm-kitty", "", "../x/xterm-256color", ".x", "a b"] {
            assert_eq!(term(unknown), "xterm-256color", "{unknown}");
        }
        // A guest that describes none cannot do better with another.
        let bare = root(&["etc/hostname"]);
        assert_eq!(terminal("xterm-kitty", bare.path(), bare.path()), "xterm-kitty");
    }

    #[test]
    fn locales_that_the_guest_lacks_are_the_usual_one() {
        let dir = root(&["usr/lib/locale/de_DE.utf8/LC_TIME", "usr/lib/locale/fr_FR@euro/LC_TIME"]);
        let seen = |caller: &[(&str, &str)], given: &[(&str, &str)]| {
            BTreeMap::from_iter(locale(&map(caller), &map(given), dir.path()))
        };
        let caller = [("LANG", "de_DE.UTF-8"), ("LC_TIME", "sv_SE.UTF-8"), ("LC_PAPER", "fr_FR@euro"), ("LC_NAME", "")];
        let expected = [("LANG", "de_DE.UTF-8"), ("LC_TIME", "C.UTF-8"), ("LC_PAPER", "fr_FR@euro")];
        assert_eq!(seen(&caller, &[]), map(&expected));
        assert_eq!(seen(&[("LANG", "POSIX"), ("LD_PRELOAD", "x")], &[]), map(&[("LANG", "POSIX")]));
        assert_eq!(seen(&[("LC_CTYPE", "../../etc")], &[]), map(&[("LC_CTYPE", "C.UTF-8")]));
        // What is given wins, also over what would overrule it.
        assert_eq!(seen(&caller, &[("LANG", "C")]), map(&[]));
        assert_eq!(
            seen(&[("LC_ALL", "de_DE.UTF-8"), ("LANG", "C")], &[("LC_TIME", "C")]),
            map(&[("LANG", "de_DE.UTF-8")])
        );
    }

    #[test]
    fn an_archive_is_searched_by_name() {
        let names = b"de_DE.utf8\0gone\0";
        let (table, strings) = (32u32, 32 + 3 * 12);
        let mut archive = Vec::new();
        for word in [0xde02_0109, 0, table, 2, 3, strings, u32::try_from(names.len()).unwrap(), 64] {
            archive.extend(word.to_ne_bytes());
        }
        for word in [1, strings, 900, 0, 0, 0, 2, strings + 11, 0u32] {
            archive.extend(word.to_ne_bytes());
        }
        archive.extend(names);
        let dir = root(&["usr/lib/locale/locale-archive"]);
        let path = dir.path().join("usr/lib/locale/locale-archive");
        fs::write(&path, &archive).unwrap();
        assert!(has_locale("de_DE.UTF-8", dir.path()));
        for absent in ["gone", "de_DE", "utf8", "E.utf8"] {
            assert!(!has_locale(absent, dir.path()), "{absent}");
        }
        for length in 0..archive.len() {
            fs::write(&path, &archive[..length]).unwrap();
            assert!(!has_locale("de_DE.UTF-8", dir.path()));
        }
    }

    #[test]
    fn a_zone_is_named_where_the_guest_knows_it() {
        let dir = root(&["usr/share/zoneinfo/Europe/Berlin", "usr/share/zoneinfo/Etc/GMT+5"]);
        let seen = |name: &str, rule: &str| {
            let some = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
            time_zone(&TimeZone { name: some(name), rule: some(rule) }, dir.path())
        };
        let rule = "CET-1CEST,M3.5.0,M10.5.0/3";
        assert_eq!(seen("Europe/Berlin", rule).as_deref(), Some("Europe/Berlin"));
        assert_eq!(seen("Etc/GMT+5", "").as_deref(), Some("Etc/GMT+5"));
        assert_eq!(seen("Asia/Tokyo", "JST-9").as_deref(), Some("JST-9"));
        assert_eq!(seen("", "<+0545>-5:45").as_deref(), Some("<+0545>-5:45"));
        for name in ["Europe", "../zoneinfo/Europe/Berlin", "/usr/share/zoneinfo/Europe/Berlin", ""] {
            assert_eq!(seen(name, ""), None, "{name}");
        }
        for rule in ["/etc/passwd", ":x", "A\nB1", "<", "../x1", "Asia/Tokyo"] {
            assert_eq!(seen("", rule), None, "{rule:?}");
        }
    }
}
