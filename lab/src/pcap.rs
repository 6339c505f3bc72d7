//! Writes captures in the pcap format, nanosecond variant, which every analyser reads.
//!
//! Format: draft-ietf-opsawg-pcap, section 4 (file header) and 5 (packet record).

use std::io::{self, Write};

use crate::capture::Frame;

/// Magic number of little-endian files whose time stamps have nanoseconds.
const MAGIC_NANOSECONDS: u32 = 0xa1b2_3c4d;
const VERSION: [u16; 2] = [2, 4];
const LONGEST_FRAME: u32 = 262_144;
const LINKTYPE_ETHERNET: u32 = 1;

/// Writes a whole file.
pub(crate) fn write(mut to: impl Write, frames: &[Frame]) -> io::Result<()> {
    write_header(&mut to)?;
    frames
        .iter()
        .try_for_each(|frame| write_record(&mut to, frame))?;
    to.flush()
}

fn write_header(to: &mut impl Write) -> io::Result<()> {
    to.write_all(&MAGIC_NANOSECONDS.to_le_bytes())?;
    for part in VERSION {
        to.write_all(&part.to_le_bytes())?;
    }
    // Two reserved fields lie between version and snapshot length.
    for field in [0, 0, LONGEST_FRAME, LINKTYPE_ETHERNET] {
        to.write_all(&field.to_le_bytes())?;
    }
    Ok(())
}

fn write_record(to: &mut impl Write, frame: &Frame) -> io::Result<()> {
    let seconds = u32::try_from(frame.at.as_secs()).map_err(io::Error::other)?;
    let kept = u32::try_from(frame.bytes.len()).map_err(io::Error::other)?;
    let length = u32::try_from(frame.length).map_err(io::Error::other)?;
    for field in [seconds, frame.at.subsec_nanos(), kept, length] {
        to.write_all(&field.to_le_bytes())?;
    }
    to.write_all(&frame.bytes)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::capture::Heading;

    #[test]
    fn a_capture_starts_with_the_nanosecond_magic_and_keeps_cut_lengths_apart() {
        let frame = Frame {
            at: Duration::new(7, 9),
            heading: Heading::In,
            length: 60,
            bytes: vec![0xaa, 0xbb],
        };
        let mut file = Vec::new();
        write(&mut file, &[frame]).unwrap();
        assert_eq!(file[..4], [0x4d, 0x3c, 0xb2, 0xa1], "magic");
        assert_eq!(file[4..8], [2, 0, 4, 0], "version 2.4");
        assert_eq!(file[20..24], [1, 0, 0, 0], "Ethernet");
        assert_eq!(
            file[24..32],
            [7, 0, 0, 0, 9, 0, 0, 0],
            "seconds and nanoseconds"
        );
        assert_eq!(
            file[32..40],
            [2, 0, 0, 0, 60, 0, 0, 0],
            "kept, then length on the wire"
        );
        assert_eq!(file[40..], [0xaa, 0xbb]);
    }
}
