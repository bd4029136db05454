//! Who calls: the person whose name and numbers a new guest's user has.

use std::fs;

use banger_api::vm::User;
use rustix::process::{getgid, getuid};

use crate::environment::Environment;

/// The caller; where that is root by sudo(8), who used it. Nobody where it is root itself, or where the name or the numbers
/// are none that a guest can be given, as those of a directory service may be.
pub fn user(environment: &Environment) -> Option<User> {
    let uid = getuid().as_raw();
    let passwd = || fs::read_to_string("/etc/passwd").unwrap_or_default();
    let user = match uid {
        0 => by_sudo(environment)?,
        _ => User { name: login_name(&passwd(), uid, environment)?, uid, gid: getgid().as_raw() },
    };
    user.flaw().is_none().then_some(user)
}

/// Who used sudo(8) to be root, if somebody did.
pub fn sudo_user(environment: &Environment) -> Option<String> {
    let name = environment.var("SUDO_USER")?.to_str()?;
    (getuid().is_root() && name != "root").then(|| name.to_owned())
}

fn by_sudo(environment: &Environment) -> Option<User> {
    let text = |name: &str| environment.var(name).and_then(|value| value.to_str());
    let number = |name: &str| text(name)?.parse().ok();
    Some(User { name: text("SUDO_USER")?.to_owned(), uid: number("SUDO_UID")?, gid: number("SUDO_GID")? })
}

/// By the file of users; for one of a directory service, which is not in it, by what the login said.
fn login_name(passwd: &str, uid: u32, environment: &Environment) -> Option<String> {
    let named = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, number) = (fields.next()?, fields.nth(1)?);
        (number.parse() == Ok(uid)).then(|| name.to_owned())
    });
    let said = ["LOGNAME", "USER"].iter().find_map(|name| environment.var(name));
    named.or_else(|| said.and_then(|name| name.to_str()).map(str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(vars: &[(&str, &str)]) -> Environment {
        let vars: Vec<_> = vars.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        Environment::new(vars.into_iter(), "/bin/banger".into())
    }

    #[test]
    fn who_used_sudo_is_the_caller() {
        let vars = [("SUDO_USER", "dev"), ("SUDO_UID", "1000"), ("SUDO_GID", "100")];
        assert_eq!(by_sudo(&with(&vars)), Some(User { name: "dev".into(), uid: 1000, gid: 100 }));
        assert_eq!(by_sudo(&with(&vars[..2])), None);
        assert_eq!(by_sudo(&with(&[("SUDO_USER", "dev"), ("SUDO_UID", "x"), ("SUDO_GID", "1")])), None);
        assert_eq!(by_sudo(&with(&[])), None);
    }

    #[test]
    fn a_name_comes_from_the_file_or_from_the_login() {
        let passwd = "root:x:0:0::/root:/bin/sh\nbroken\ndev:x:1000:1000::/home/dev:/bin/sh\n";
        let login = with(&[("USER", "other")]);
        assert_eq!(login_name(passwd, 1000, &login).as_deref(), Some("dev"));
        assert_eq!(login_name(passwd, 1001, &login).as_deref(), Some("other"));
        assert_eq!(login_name(passwd, 1001, &with(&[])), None);
    }
}
