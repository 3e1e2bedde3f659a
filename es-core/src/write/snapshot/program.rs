//! The identity of the running program.

use std::{fs::File, io::Read, sync::OnceLock};

/// A mark of the running executable's content, the same for every process of it; `None` where it cannot be read.
///
/// The link of the operating system leads to the file that was started, also if a newer file has its name now. Without such a
/// link the file of that name may be another program, so there is no mark.
pub(super) fn mark() -> Option<u64> {
    static MARK: OnceLock<Option<u64>> = OnceLock::new();
    *MARK.get_or_init(|| File::open("/proc/self/exe").ok().and_then(mark_of))
}

fn mark_of(mut file: impl Read) -> Option<u64> {
    let mut hasher = crc32fast::Hasher::new();
    let mut length: u64 = 0;
    let mut buffer = vec![0; 256 * 1024];
    loop {
        match file.read(&mut buffer).ok()? {
            0 => return Some((length << 32) | u64::from(hasher.finalize())),
            read => {
                hasher.update(&buffer[..read]);
                length += read as u64;
            }
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "that is how a test fails")]
mod tests {
    use super::*;

    #[test]
    fn a_program_has_one_mark_and_another_program_has_another() {
        assert_eq!(mark(), File::open(std::env::current_exe().unwrap()).ok().and_then(mark_of));
        // It is kept with snapshots, so it must not change.
        assert_eq!(mark_of(&b"one"[..]), Some((3 << 32) | u64::from(crc32fast::hash(b"one"))));
        let marks = ["one", "two", "more"].map(|content| mark_of(content.as_bytes()).unwrap());
        assert!(marks[0] != marks[1] && marks[1] != marks[2] && marks[0] != marks[2]);
    }
}
