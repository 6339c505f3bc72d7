//! Captures: pcap and pcapng files, read block by block. The only file that names pcap-parser.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pcap_parser::traits::PcapReaderIterator;
use pcap_parser::{Block, PcapBlockOwned, PcapError, create_reader};
use thiserror::Error;

use crate::Timestamp;

/// A capture that is being read.
pub struct Capture {
    file: PathBuf,
    reader: Box<dyn PcapReaderIterator + Send>,
    /// Octets that the reader's buffer can hold.
    buffer_len: usize,
    blocks: u64,
    interfaces: Vec<Interface>,
    /// Resolution of a legacy capture's time field.
    nanoseconds: bool,
    last: Timestamp,
    octets: Vec<u8>,
}

/// How the frames of one interface are to be read.
#[derive(Debug, Clone, Copy)]
struct Interface {
    link_type: i32,
    ticks_per_second: u64,
    /// Seconds to add to every time.
    offset: i64,
}

/// One captured frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// When it was captured.
    pub at: Timestamp,
    /// What its octets begin with, as the tcpdump project numbers it.
    pub link_type: i32,
    /// As much of the frame as was captured.
    pub octets: &'a [u8],
}

/// A capture cannot be read, or not any further.
#[derive(Debug, Error)]
#[error("{}: {problem}{}", file.display(), place(*block, *offset))]
pub struct CaptureError {
    /// The capture.
    pub file: PathBuf,
    /// The block that cannot be read, counted from 1; 0 if it is not about a block.
    pub block: u64,
    /// Where in the file this block begins, in octets.
    pub offset: u64,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What is wrong with a capture.
#[derive(Debug, Error)]
pub enum Problem {
    /// The file cannot be opened.
    #[error("cannot open: {0}")]
    Open(#[source] io::Error),
    /// The file holds nothing at all.
    #[error("the file is empty")]
    Empty,
    /// It begins with neither magic number.
    #[error("neither pcap nor pcapng")]
    NotACapture,
    /// It ends in the middle of a block.
    #[error("the file ends in the middle of a block; the capture was cut short")]
    CutShort,
    /// A block contradicts itself.
    #[error("the block is corrupt")]
    Corrupt,
    /// A block claims to be larger than any frame.
    #[error("the block is corrupt: it claims to be larger than {MAX_BUFFER} octets")]
    TooLarge,
    /// A frame belongs to an interface that was never described.
    #[error("the frame belongs to interface {0}, which the capture does not describe")]
    UnknownInterface(u32),
    /// The file cannot be read.
    #[error("reading failed")]
    Read,
    /// Frames of a link layer that is not known.
    #[error(transparent)]
    LinkType(#[from] super::link::UnknownLinkType),
}

impl Capture {
    /// Opens a capture and reads its header.
    ///
    /// # Errors
    /// If there is no such file, or it is no capture.
    pub fn open(path: &Path) -> Result<Self, CaptureError> {
        match File::open(path) {
            Ok(file) => Self::read(path, file),
            Err(error) => Err(at_the_start(path, Problem::Open(error))),
        }
    }

    /// Reads a capture's header from `source`; errors name it `name`.
    ///
    /// # Errors
    /// If it is no capture.
    pub fn read(name: &Path, source: impl io::Read + Send + 'static) -> Result<Self, CaptureError> {
        let reader = create_reader(START_BUFFER, source).map_err(|error| {
            let problem = match error {
                PcapError::Eof => Problem::Empty,
                PcapError::Incomplete(_) | PcapError::UnexpectedEof => Problem::CutShort,
                PcapError::ReadError => Problem::Read,
                _ => Problem::NotACapture,
            };
            at_the_start(name, problem)
        })?;
        Ok(Self {
            file: name.into(),
            reader,
            buffer_len: START_BUFFER,
            blocks: 0,
            interfaces: Vec::new(),
            nanoseconds: false,
            last: Timestamp::ORIGIN,
            octets: Vec::new(),
        })
    }

    /// The next frame, or nothing at the end.
    ///
    /// # Errors
    /// If the rest of the capture cannot be read. Everything before was handed out.
    pub fn next_frame(&mut self) -> Result<Option<Frame<'_>>, CaptureError> {
        loop {
            match self.next_block() {
                Ok(Step::Frame(at, link_type)) => {
                    self.last = at;
                    return Ok(Some(Frame {
                        at,
                        link_type,
                        octets: &self.octets,
                    }));
                }
                Ok(Step::NoFrame) => {}
                Ok(Step::End) => return Ok(None),
                Err(problem) => return Err(self.error(problem)),
            }
        }
    }

    /// An error about the block that was read last.
    #[must_use]
    pub fn error(&self, problem: Problem) -> CaptureError {
        let offset = self.reader.consumed() as u64;
        CaptureError {
            file: self.file.clone(),
            block: self.blocks + 1,
            offset,
            problem,
        }
    }

    fn next_block(&mut self) -> Result<Step, Problem> {
        let (len, step) = match self.reader.next() {
            Ok((len, block)) => {
                let mut format = Format {
                    interfaces: &mut self.interfaces,
                    nanoseconds: &mut self.nanoseconds,
                    last: self.last,
                    octets: &mut self.octets,
                };
                (len, format.read(&block)?)
            }
            Err(PcapError::Eof) => return Ok(Step::End),
            Err(PcapError::Incomplete(_)) => {
                return self
                    .reader
                    .refill()
                    .map(|()| Step::NoFrame)
                    .map_err(|_| Problem::Read);
            }
            Err(PcapError::BufferTooSmall) => return self.grow(),
            Err(PcapError::UnexpectedEof) => return Err(Problem::CutShort),
            Err(PcapError::ReadError) => return Err(Problem::Read),
            Err(_) => return Err(Problem::Corrupt),
        };
        self.reader.consume(len);
        self.blocks += 1;
        Ok(step)
    }

    fn grow(&mut self) -> Result<Step, Problem> {
        self.buffer_len *= 2;
        if self.buffer_len > MAX_BUFFER || !self.reader.grow(self.buffer_len) {
            return Err(Problem::TooLarge);
        }
        self.reader
            .refill()
            .map(|()| Step::NoFrame)
            .map_err(|_| Problem::Read)
    }
}

/// What one block brought.
enum Step {
    Frame(Timestamp, i32),
    NoFrame,
    End,
}

/// What was learned from the blocks before.
struct Format<'a> {
    interfaces: &'a mut Vec<Interface>,
    nanoseconds: &'a mut bool,
    last: Timestamp,
    octets: &'a mut Vec<u8>,
}

impl Format<'_> {
    fn read(&mut self, block: &PcapBlockOwned<'_>) -> Result<Step, Problem> {
        match block {
            PcapBlockOwned::LegacyHeader(header) => {
                *self.nanoseconds = header.is_nanosecond_precision();
                // The upper bits say how much of a frame's checksum was captured.
                self.describe(header.network.0 & LINK_TYPE_MASK, 0, 0);
                Ok(Step::NoFrame)
            }
            PcapBlockOwned::Legacy(frame) => {
                let unit = if *self.nanoseconds { 1 } else { 1000 };
                let fraction = Duration::from_nanos(u64::from(frame.ts_usec) * unit);
                let at = Duration::from_secs(frame.ts_sec.into()) + fraction;
                self.frame(
                    0,
                    Some(Timestamp::after_origin(at)),
                    frame.data,
                    frame.caplen,
                )
            }
            PcapBlockOwned::NG(block) => self.read_next_generation(block),
        }
    }

    fn read_next_generation(&mut self, block: &Block<'_>) -> Result<Step, Problem> {
        match block {
            Block::SectionHeader(_) => self.interfaces.clear(),
            Block::InterfaceDescription(interface) => {
                let ticks = interface.ts_resolution().unwrap_or(MICROSECONDS);
                self.describe(interface.linktype.0, ticks, interface.if_tsoffset);
            }
            Block::EnhancedPacket(packet) => {
                let ticks = u64::from(packet.ts_high) << 32 | u64::from(packet.ts_low);
                let at = self.interface(packet.if_id)?.time(ticks);
                return self.frame(packet.if_id, Some(at), packet.data, packet.caplen);
            }
            Block::SimplePacket(packet) => {
                return self.frame(0, None, packet.data, packet.origlen);
            }
            _ => {}
        }
        Ok(Step::NoFrame)
    }

    fn describe(&mut self, link_type: i32, ticks_per_second: u64, offset: i64) {
        let ticks_per_second = ticks_per_second.max(1);
        self.interfaces.push(Interface {
            link_type,
            ticks_per_second,
            offset,
        });
    }

    /// Keeps a frame's octets, without the padding behind them.
    fn frame(
        &mut self,
        interface: u32,
        at: Option<Timestamp>,
        data: &[u8],
        len: u32,
    ) -> Result<Step, Problem> {
        let link_type = self.interface(interface)?.link_type;
        let len = data.len().min(usize::try_from(len).unwrap_or(usize::MAX));
        self.octets.clear();
        self.octets.extend_from_slice(&data[..len]);
        Ok(Step::Frame(at.unwrap_or(self.last), link_type))
    }

    fn interface(&self, id: u32) -> Result<Interface, Problem> {
        let index = usize::try_from(id).unwrap_or(usize::MAX);
        self.interfaces
            .get(index)
            .copied()
            .ok_or(Problem::UnknownInterface(id))
    }
}

impl Interface {
    fn time(&self, ticks: u64) -> Timestamp {
        let seconds = (ticks / self.ticks_per_second).saturating_add_signed(self.offset);
        let fraction = u128::from(ticks % self.ticks_per_second) * 1_000_000_000;
        let nanos = fraction / u128::from(self.ticks_per_second);
        let nanos = u32::try_from(nanos).expect("a fraction of a second has less than 10^9 ns");
        Timestamp::after_origin(Duration::new(seconds, nanos))
    }
}

fn at_the_start(file: &Path, problem: Problem) -> CaptureError {
    CaptureError {
        file: file.into(),
        block: 0,
        offset: 0,
        problem,
    }
}

fn place(block: u64, offset: u64) -> String {
    if block == 0 {
        String::new()
    } else {
        format!(" (block {block} at octet {offset})")
    }
}

const START_BUFFER: usize = 1 << 17;
/// No tool writes larger blocks; a larger length is garbage.
const MAX_BUFFER: usize = 1 << 26;
/// Sixteen bits of link type.
const LINK_TYPE_MASK: i32 = 0xffff;
/// Default resolution of pcapng, in ticks per second.
const MICROSECONDS: u64 = 1_000_000;
