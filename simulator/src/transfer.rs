//! The two ends of a file transfer over HTTP. In a push the roles are the same and only the dialling is
//! reversed: the owner dials, says `GIVE`, and waits to be asked.

use std::time::Duration;

use crate::conversation::{Step, received, time_out};
use crate::payload::SharedFile;
use crate::profile::Patience;
use crate::report::{Failure, Part};
use crate::wire::http::{self, Identity, LONGEST_HEAD, Status};

/// The end that wants the file.
#[derive(Debug)]
pub struct Downloader {
    file: SharedFile,
    patience: Patience,
    arrived: Vec<u8>,
    content: Option<u64>,
    deadline: Duration,
}

impl Downloader {
    /// Begins on a connection that has just come up, with a request head.
    pub fn start(
        now: Duration,
        request: Vec<u8>,
        file: SharedFile,
        patience: Patience,
    ) -> (Self, Vec<Step>) {
        let deadline = now + patience.response;
        let downloader = Self {
            file,
            patience,
            arrived: Vec::new(),
            content: None,
            deadline,
        };
        (
            downloader,
            vec![Step::Send {
                part: Part::Request,
                bytes: request,
            }],
        )
    }

    /// Takes what arrived.
    pub fn handle_data(&mut self, now: Duration, bytes: &[u8]) -> Vec<Step> {
        self.deadline = now + self.patience.file;
        match self.content {
            Some(_) => self.handle_content(bytes),
            None => self.handle_head(bytes),
        }
    }

    /// The next instant at which something is due.
    pub fn poll_timeout(&self) -> Duration {
        self.deadline
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Duration) -> Vec<Step> {
        time_out(self.deadline, now)
    }

    fn handle_head(&mut self, bytes: &[u8]) -> Vec<Step> {
        self.arrived.extend_from_slice(bytes);
        let Some(head) = http::take_head(&mut self.arrived) else {
            let mut steps = vec![received(Part::Response, bytes.len())];
            if self.arrived.len() > LONGEST_HEAD {
                steps.push(Step::Fail(Failure::Protocol));
            }
            return steps;
        };
        let content = std::mem::take(&mut self.arrived);
        let mut steps = vec![received(Part::Response, bytes.len() - content.len())];
        match http::parse_response(&head) {
            Some(response) if response.code == 206 && response.content_len == self.file_len() => {
                self.content = Some(0);
                if !content.is_empty() {
                    steps.extend(self.handle_content(&content));
                }
            }
            Some(response) if response.code >= 400 => {
                let retry_after = response.retry_after_seconds.map(Duration::from_secs);
                steps.push(Step::Refused { retry_after });
            }
            Some(_) | None => steps.push(Step::Fail(Failure::Protocol)),
        }
        steps
    }

    fn handle_content(&mut self, bytes: &[u8]) -> Vec<Step> {
        let done = self.content.unwrap_or(0);
        let mut steps = vec![received(Part::File, bytes.len())];
        let start = usize::try_from(done).unwrap_or(usize::MAX);
        if self
            .file
            .content()
            .get(start..start.saturating_add(bytes.len()))
            != Some(bytes)
        {
            steps.push(Step::Fail(Failure::Protocol));
            return steps;
        }
        let done = done + bytes.len() as u64;
        self.content = Some(done);
        if done == self.file_len() {
            steps.push(Step::FileDone { bytes: done });
            steps.push(Step::Close);
        }
        steps
    }

    fn file_len(&self) -> u64 {
        self.file.content().len() as u64
    }
}

/// An uploader does not see its bytes arrive, so it waits for the whole file as long as a downloader
/// would for so many pieces.
const FILE_PATIENCE_FACTOR: u32 = 10;

/// The end that has the file.
#[derive(Debug)]
pub struct Uploader {
    who: Identity,
    file: SharedFile,
    availability: Availability,
    arrived: Vec<u8>,
    served: bool,
    deadline: Duration,
    patience: Patience,
}

/// Whether an uploader gives the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Availability {
    /// To anybody who asks for it.
    Free,
    /// All slots are taken.
    Busy,
    /// It has no such file.
    Absent,
}

impl Uploader {
    /// Begins on a connection on which the other side will ask.
    pub fn start(
        now: Duration,
        who: Identity,
        file: SharedFile,
        availability: Availability,
        patience: Patience,
    ) -> Self {
        let deadline = now + patience.response;
        Self {
            who,
            file,
            availability,
            arrived: Vec::new(),
            served: false,
            deadline,
            patience,
        }
    }

    /// Takes what arrived.
    pub fn handle_data(&mut self, now: Duration, bytes: &[u8]) -> Vec<Step> {
        self.arrived.extend_from_slice(bytes);
        let mut steps = vec![received(Part::Request, bytes.len())];
        if let Some(head) = http::take_head(&mut self.arrived) {
            self.deadline = now + self.patience.file * FILE_PATIENCE_FACTOR;
            self.answer(&head, &mut steps);
        } else if self.arrived.len() > LONGEST_HEAD {
            steps.push(Step::Fail(Failure::Protocol));
        }
        steps
    }

    /// The other side closed in good order: after the whole file that means it is content.
    pub fn handle_closed(&self) -> Step {
        if self.served {
            Step::FileDone {
                bytes: self.file.content().len() as u64,
            }
        } else {
            Step::Fail(Failure::Closed)
        }
    }

    /// The next instant at which something is due.
    pub fn poll_timeout(&self) -> Duration {
        self.deadline
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Duration) -> Vec<Step> {
        time_out(self.deadline, now)
    }

    fn answer(&mut self, head: &[u8], steps: &mut Vec<Step>) {
        let status = match (http::judge_request(head, &self.file), self.availability) {
            (Status::PartialContent, Availability::Busy) => Status::Busy,
            (Status::PartialContent, Availability::Absent) => Status::NotFound,
            (status, _) => status,
        };
        let bytes = http::encode_response(status, &self.who, &self.file);
        steps.push(Step::Send {
            part: Part::Response,
            bytes,
        });
        if status == Status::PartialContent {
            steps.push(Step::Send {
                part: Part::File,
                bytes: self.file.content().to_vec(),
            });
            self.served = true;
        }
        steps.push(Step::Close);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payload::FILE_BYTES;
    use crate::profile::{GIFT, HttpStyle};
    use crate::seed::Seed;
    use crate::wire::Network;
    use crate::wire::http::{Method, RETRY_AFTER_SECONDS, encode_request};

    #[test]
    fn a_file_arrives_whole_and_both_ends_say_so() {
        let (steps, uploader) = transfer(Availability::Free, usize::MAX, |_| {});
        assert!(steps.contains(&Step::FileDone { bytes: FILE_BYTES }));
        assert_eq!(
            uploader.handle_closed(),
            Step::FileDone { bytes: FILE_BYTES }
        );
    }

    #[test]
    fn a_file_arrives_over_segments_of_seven_bytes() {
        let (steps, _) = transfer(Availability::Free, 7, |_| {});
        assert!(steps.contains(&Step::FileDone { bytes: FILE_BYTES }));
    }

    #[test]
    fn one_altered_byte_fails_the_transfer() {
        let (steps, _) = transfer(Availability::Free, usize::MAX, |content| {
            content[12_345] ^= 1;
        });
        assert!(steps.contains(&Step::Fail(Failure::Protocol)));
        assert!(
            !steps
                .iter()
                .any(|step| matches!(step, Step::FileDone { .. }))
        );
    }

    #[test]
    fn a_busy_uploader_is_to_be_asked_again_and_one_without_the_file_is_not() {
        let retry_after = Some(Duration::from_secs(RETRY_AFTER_SECONDS));
        let (steps, _) = transfer(Availability::Busy, usize::MAX, |_| {});
        assert!(steps.contains(&Step::Refused { retry_after }));
        let (steps, uploader) = transfer(Availability::Absent, usize::MAX, |_| {});
        assert!(steps.contains(&Step::Refused { retry_after: None }));
        assert_eq!(uploader.handle_closed(), Step::Fail(Failure::Closed));
    }

    #[test]
    fn silence_instead_of_a_response_is_given_up_after_15_seconds() {
        let (mut downloader, _) = start();
        assert_eq!(downloader.poll_timeout(), Duration::from_secs(15));
        let steps = downloader.handle_timeout(Duration::from_secs(15));
        assert_eq!(steps, [Step::Fail(Failure::Timeout)]);
    }

    fn who() -> Identity {
        Identity {
            user_name: "anyone".to_owned(),
            network: Network::Kazaa,
            address: "198.18.0.1:1214".parse().unwrap(),
            supernode: "198.18.0.2:1214".parse().unwrap(),
        }
    }

    fn start() -> (Downloader, Vec<Step>) {
        let file = SharedFile::of(Seed(1));
        let source = "198.18.0.1:1214".parse().unwrap();
        let request = encode_request(Method::Get, HttpStyle::Gift, &who(), source, &file);
        Downloader::start(Duration::ZERO, request, file, GIFT.patience)
    }

    /// What the downloader says, with the content passed through `alter` on its way.
    fn transfer(
        availability: Availability,
        cut: usize,
        alter: impl Fn(&mut Vec<u8>),
    ) -> (Vec<Step>, Uploader) {
        let (mut downloader, request) = start();
        let mut uploader = Uploader::start(
            Duration::ZERO,
            who(),
            SharedFile::of(Seed(1)),
            availability,
            GIFT.patience,
        );
        let mut said = Vec::new();
        for mut flight in sent(&request).flat_map(|head| uploader.handle_data(Duration::ZERO, head))
        {
            let Step::Send { part, bytes } = &mut flight else {
                continue;
            };
            if *part == Part::File {
                alter(bytes);
            }
            for piece in bytes.chunks(cut) {
                said.extend(downloader.handle_data(Duration::ZERO, piece));
            }
        }
        (said, uploader)
    }

    fn sent(steps: &[Step]) -> impl Iterator<Item = &[u8]> {
        steps.iter().filter_map(|step| match step {
            Step::Send { bytes, .. } => Some(bytes.as_slice()),
            _ => None,
        })
    }
}
