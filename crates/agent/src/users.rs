//! Users and their groups, read from the guest's own `/etc/passwd` and `/etc/group`.
//!
//! An own parser: a static program has no name service switch. Lines that make no sense are passed over, as by libc.

use std::path::PathBuf;

/// A user of the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Login name.
    pub name: String,
    /// User id.
    pub uid: u32,
    /// Its primary group.
    pub gid: u32,
    /// Its home directory.
    pub home: PathBuf,
    /// Its login shell.
    pub shell: PathBuf,
}

/// The user of this name or number in the text of a passwd file. A number that no line has is a user too: of the group
/// with the same number, at home in `/`.
pub fn find(passwd: &str, wanted: &str) -> Option<User> {
    let number = wanted.parse::<u32>().ok();
    let mut users = passwd.lines().filter_map(parse);
    users
        .find(|user| user.name == wanted || Some(user.uid) == number)
        .or_else(|| number.map(|uid| User::unlisted(uid, wanted)))
}

/// Every group that a user is in, its primary one first.
pub fn groups(group: &str, user: &User) -> Vec<u32> {
    let mut found = vec![user.gid];
    for line in group.lines() {
        let fields: Vec<&str> = line.split(':').collect();
        if let [_, _, gid, members] = fields[..]
            && let Ok(gid) = gid.parse()
            && members.split(',').any(|member| member == user.name)
            && !found.contains(&gid)
        {
            found.push(gid);
        }
    }
    found
}

impl User {
    fn unlisted(uid: u32, name: &str) -> User {
        User { name: name.to_owned(), uid, gid: uid, home: "/".into(), shell: "/bin/sh".into() }
    }
}

fn parse(line: &str) -> Option<User> {
    let fields: Vec<&str> = line.split(':').collect();
    let [name, _, uid, gid, _, home, shell] = fields[..] else { return None };
    if name.is_empty() || name.starts_with('#') {
        return None;
    }
    let or = |value: &str, otherwise: &str| PathBuf::from(if value.is_empty() { otherwise } else { value });
    Some(User {
        name: name.to_owned(),
        uid: uid.parse().ok()?,
        gid: gid.parse().ok()?,
        home: or(home, "/"),
        shell: or(shell, "/bin/sh"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\n\
        # a comment\nbroken line\nbad:x:one:1::/:/bin/sh\n\
        dev:x:1000:1000:,,,:/home/dev:\n1001:x:7:7::/odd:/bin/sh\n";
    const GROUP: &str = "root:x:0:\nsudo:x:27:other,dev\ndev:x:1000:dev\nbad:x:y:dev\nnot:x:28:develop\n";

    #[test]
    fn by_name_and_by_number() {
        let dev = find(PASSWD, "dev").unwrap();
        assert_eq!((dev.uid, dev.home.to_str(), dev.shell.to_str()), (1000, Some("/home/dev"), Some("/bin/sh")));
        assert_eq!(find(PASSWD, "1000").unwrap(), dev);
        assert_eq!(find(PASSWD, "nobody"), None);
        assert_eq!(find(PASSWD, "4711").unwrap(), User::unlisted(4711, "4711"));
        assert_eq!(find(PASSWD, "bad"), None);
    }

    #[test]
    fn a_name_made_of_digits_is_a_name() {
        assert_eq!(find(PASSWD, "1001").unwrap().uid, 7);
    }

    #[test]
    fn groups_are_those_that_name_the_user() {
        assert_eq!(groups(GROUP, &find(PASSWD, "dev").unwrap()), [1000, 27]);
        assert_eq!(groups(GROUP, &find(PASSWD, "root").unwrap()), [0]);
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(passwd in ".{0,200}", group in ".{0,200}", wanted in ".{0,9}") {
            if let Some(user) = find(&passwd, &wanted) {
                prop_assert!(groups(&group, &user).contains(&user.gid));
            }
        }
    }
}
