//! A terminal, as a program sees one: a pseudo-terminal whose other end the test holds.

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::time::Duration;

use banger_linux::process::{Launch, Process, Program, Stream};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;

use super::Fake;

/// A terminal with the command line on it.
pub struct Screen {
    pub master: File,
    pub slave: OwnedFd,
    pub process: Process,
}

impl Screen {
    pub fn start(fake: &Fake, args: &[&str], rows: u16, columns: u16) -> Screen {
        Screen::of(fake, env!("CARGO_BIN_EXE_banger"), args, &[], (rows, columns))
    }

    /// With any program on it, and these variables beside the usual ones.
    pub fn of(
        fake: &Fake,
        program: &str,
        args: &[&str],
        variables: &[(&str, &str)],
        (rows, columns): (u16, u16),
    ) -> Screen {
        // A program that inherited its own terminal's other end would never be hung up.
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = rustix::pty::openpt(flags).unwrap();
        rustix::pty::grantpt(&master).unwrap();
        rustix::pty::unlockpt(&master).unwrap();
        let slave = rustix::pty::ioctl_tiocgptpeer(&master, flags).unwrap();
        let screen = |fd: &OwnedFd| Stream::Fd(fd.try_clone().unwrap());
        let mut launch = Launch::new(Program::StandIn(program.into()), args);
        launch.env = vec![
            ("BANGER_HOST".into(), fake.socket().into()),
            ("TERM".into(), "xterm-256color".into()),
            ("LANG".into(), "C.UTF-8".into()),
        ];
        launch.env.extend(variables.iter().map(|(name, value)| (name.into(), value.into())));
        (launch.stdin, launch.stdout, launch.stderr) = (screen(&slave), screen(&slave), screen(&slave));
        (launch.session, launch.terminal) = (true, true);
        // The size is there before the program looks.
        resize(&slave, rows, columns);
        Screen { master: master.into(), slave, process: Process::start(launch).unwrap() }
    }

    pub fn read_until(&mut self, end: &str) -> String {
        let mut text = Vec::new();
        let mut byte = [0];
        while !text.ends_with(end.as_bytes()) {
            let mut there = [PollFd::new(&self.master, PollFlags::IN)];
            let patience = Timespec { tv_sec: 20, tv_nsec: 0 };
            let ready = rustix::event::poll(&mut there, Some(&patience)).unwrap();
            assert!(ready > 0, "no {end:?} in {:?}", String::from_utf8_lossy(&text));
            self.master.read_exact(&mut byte).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&text)));
            text.push(byte[0]);
        }
        String::from_utf8(text).unwrap()
    }

    pub fn is_raw(&self) -> bool {
        let modes = rustix::termios::tcgetattr(&self.slave).unwrap().local_modes;
        !modes.intersects(rustix::termios::LocalModes::ICANON | rustix::termios::LocalModes::ECHO)
    }

    pub fn code(&self) -> Option<i32> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let ended = async { tokio::time::timeout(Duration::from_secs(10), self.process.ended()).await };
        runtime.block_on(ended).expect("it does not end").unwrap().unwrap().code()
    }
}

pub fn resize(terminal: &OwnedFd, rows: u16, columns: u16) {
    let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(terminal, size).unwrap();
}
