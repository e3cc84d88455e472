//! WebSocket frames without I/O: RFC 6455 §5.
//!
//! Owns: where frames end in a tunnel that only passes them on ([`FrameScanner`]), taking the
//! other side's payload out of its frames under every rule of §5 ([`Unwrapper`]), and writing
//! frames ([`append`], [`pong`], [`close`]).
//! Does not own: the opening handshake, extensions (none is ever agreed), or the payload's meaning.
//!
//! Why our own: the published sans-io crates either check nothing (reserved bits, masking,
//! continuation) or hold a frame until it is whole; a relay wants each byte at once, in place.

use std::ops::Range;

use thiserror::Error;

/// The largest payload of a control frame, in bytes, §5.5.
pub const MAX_CONTROL: usize = 125;

/// A frame's opcode, §5.2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
#[expect(missing_docs, reason = "the names are the RFC's own")]
pub enum Opcode {
    Continuation = 0x0,
    Text = 0x1,
    Binary = 0x2,
    Close = 0x8,
    Ping = 0x9,
    Pong = 0xA,
}

impl Opcode {
    fn of(first_byte: u8) -> Option<Self> {
        Some(match first_byte & 0x0F {
            0x0 => Self::Continuation,
            0x1 => Self::Text,
            0x2 => Self::Binary,
            0x8 => Self::Close,
            0x9 => Self::Ping,
            0xA => Self::Pong,
            _ => return None,
        })
    }

    fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }
}

const FIN: u8 = 0x80;
const RESERVED: u8 = 0x70;
const MASKED: u8 = 0x80;
const SIZE: u8 = 0x7F;

/// The front of a frame, collected byte by byte: 14 bytes at most.
#[derive(Debug, Clone, Copy, Default)]
struct Head {
    bytes: [u8; 14],
    length: u8,
}

impl Head {
    /// Moves bytes from the front of `input` until the head is complete, and says whether it is.
    /// `check` sees the head after every byte, so that what is wrong is known at once.
    fn fill<E>(
        &mut self,
        input: &mut &[u8],
        check: impl Fn(&Self) -> Result<(), E>,
    ) -> Result<bool, E> {
        while self.length < self.wanted() {
            let Some((&byte, rest)) = input.split_first() else {
                return Ok(false);
            };
            *input = rest;
            if let Some(place) = self.bytes.get_mut(usize::from(self.length)) {
                *place = byte;
            }
            self.length += 1;
            check(self)?;
        }
        Ok(true)
    }

    fn first(&self) -> u8 {
        self.bytes[0]
    }

    fn is_masked(&self) -> bool {
        self.bytes[1] & MASKED != 0
    }

    /// How long the head is, as far as its first two bytes tell; 14 at most.
    fn wanted(&self) -> u8 {
        if self.length < 2 {
            return 2;
        }
        2 + self.size_bytes() + if self.is_masked() { 4 } else { 0 }
    }

    /// How many bytes the extended payload length takes.
    fn size_bytes(&self) -> u8 {
        match self.bytes[1] & SIZE {
            126 => 2,
            127 => 8,
            _ => 0,
        }
    }

    fn has_size(&self) -> bool {
        self.length >= 2 && self.length >= 2 + self.size_bytes()
    }

    /// The payload length in bytes; to be asked once [`Head::has_size`].
    fn size(&self) -> u64 {
        let [_, short, extended @ ..] = self.bytes;
        match short & SIZE {
            126 => extended
                .first_chunk()
                .map_or(0, |bytes| u16::from_be_bytes(*bytes).into()),
            127 => extended
                .first_chunk()
                .map_or(0, |bytes| u64::from_be_bytes(*bytes)),
            size => u64::from(size),
        }
    }

    /// The last four bytes of a complete head that is masked; zero masks nothing.
    fn mask(&self) -> [u8; 4] {
        self.bytes
            .get(..usize::from(self.length))
            .filter(|_| self.is_masked())
            .and_then(<[u8]>::last_chunk::<4>)
            .copied()
            .unwrap_or_default()
    }
}

/// Follows frames in one direction of a tunnel, which passes all bytes on as they are.
///
/// It holds a few bytes of state and steps over payloads by arithmetic. It judges nothing: any
/// bytes are frames of some kind. It tells where a frame of our own, such as a Close, may stand.
#[derive(Debug, Clone, Default)]
pub struct FrameScanner {
    head: Head,
    left: u64,
    close_seen: bool,
}

impl FrameScanner {
    /// A scanner for the bytes behind the opening handshake.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next bytes of the stream. Gives how many of them stand before the last end of a
    /// frame in them: behind those, another frame may be put in. `None` where no frame ends here.
    pub fn advance(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut rest = bytes;
        let mut boundary = None;
        while !rest.is_empty() {
            rest = self.advance_frame(rest);
            if self.at_boundary() {
                boundary = Some(bytes.len() - rest.len());
            }
        }
        boundary
    }

    /// Whether the bytes so far end with a frame.
    #[must_use]
    pub fn at_boundary(&self) -> bool {
        self.head.length == 0
    }

    /// How many of the next `bytes` belong to the frame that has been begun.
    #[must_use]
    pub fn under_way(&self, bytes: &[u8]) -> usize {
        if self.at_boundary() {
            return 0;
        }
        bytes.len() - self.clone().advance_frame(bytes).len()
    }

    /// Whether a Close frame has begun: no other frame may follow it, §5.5.1.
    #[must_use]
    pub fn close_seen(&self) -> bool {
        self.close_seen
    }

    /// Steps to the end of the current frame, or of `bytes`.
    fn advance_frame<'a>(&mut self, mut bytes: &'a [u8]) -> &'a [u8] {
        let complete_before = self.head.length >= self.head.wanted();
        let Ok(complete) = self
            .head
            .fill(&mut bytes, |_| Ok::<_, std::convert::Infallible>(()));
        self.close_seen |= self.head.first() & 0x0F == Opcode::Close as u8;
        if !complete {
            return bytes;
        }
        if !complete_before {
            self.left = self.head.size();
        }
        let step = usize::try_from(self.left)
            .unwrap_or(usize::MAX)
            .min(bytes.len());
        self.left -= step as u64;
        if self.left == 0 {
            self.head = Head::default();
        }
        bytes.get(step..).unwrap_or_default()
    }
}

/// Which end of a WebSocket somebody is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It has asked for the WebSocket, and masks its frames, §5.3.
    Client,
    /// It was asked, and must not.
    Server,
}

/// Why the other side's bytes are refused. The connection ends with [`Violation::close_code`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Violation {
    /// A reserved bit is set, though no extension was agreed, §5.2.
    #[error("a reserved bit is set")]
    ReservedBits,
    /// An opcode that is not defined, §5.2.
    #[error("the opcode {0:#x} is not defined")]
    UnknownOpcode(u8),
    /// A client must mask, §5.1.
    #[error("a frame is not masked")]
    NotMasked,
    /// A server must not, §5.1.
    #[error("a frame is masked")]
    Masked,
    /// A control frame in fragments, §5.5.
    #[error("a control frame is fragmented")]
    FragmentedControl,
    /// A control frame over 125 bytes, §5.5.
    #[error("a control frame is over 125 bytes")]
    LongControl,
    /// A continuation of nothing, §5.4.
    #[error("a continuation without a message")]
    UnexpectedContinuation,
    /// A new message within a fragmented one, §5.4.
    #[error("a message begins within another")]
    UnfinishedMessage,
    /// The payload length is not in its shortest form, or its top bit is set, §5.2.
    #[error("the payload length is not well-formed")]
    Length,
    /// A Close with one byte, or with a code that may not be sent, §7.4.
    #[error("the close code is not valid")]
    CloseCode,
    /// A Close whose reason is not UTF-8, §5.5.1.
    #[error("the close reason is not UTF-8")]
    CloseReason,
    /// A text message, where only binary ones are taken (\[MQTT-6.0.0-1\] of MQTT).
    #[error("a text message")]
    Text,
}

impl Violation {
    /// The status code to close with, §7.4.1.
    #[must_use]
    pub fn close_code(&self) -> u16 {
        match self {
            Self::ReservedBits
            | Self::UnknownOpcode(_)
            | Self::NotMasked
            | Self::Masked
            | Self::FragmentedControl
            | Self::LongControl
            | Self::UnexpectedContinuation
            | Self::UnfinishedMessage
            | Self::Length
            | Self::CloseCode => 1002,
            Self::Text => 1003,
            Self::CloseReason => 1007,
        }
    }
}

/// The payload of a control frame: 125 bytes at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ControlPayload {
    bytes: [u8; MAX_CONTROL],
    length: u8,
}

impl ControlPayload {
    const EMPTY: Self = Self {
        bytes: [0; MAX_CONTROL],
        length: 0,
    };

    /// The bytes, unmasked.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes
            .get(..usize::from(self.length))
            .unwrap_or_default()
    }

    /// Appends `bytes`; the frame's length was checked, so they fit.
    fn push(&mut self, bytes: &[u8]) {
        let free = self.bytes.iter_mut().skip(usize::from(self.length));
        for (place, byte) in free.zip(bytes) {
            *place = *byte;
            self.length += 1;
        }
    }

    /// The status code of a Close, §5.5.1, §7.4: `None` where it gives none.
    fn close_code(&self) -> Result<Option<u16>, Violation> {
        let Some((&code, reason)) = self.as_bytes().split_first_chunk::<2>() else {
            return if self.length == 0 {
                Ok(None)
            } else {
                Err(Violation::CloseCode)
            };
        };
        let code = u16::from_be_bytes(code);
        if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
            return Err(Violation::CloseCode);
        }
        if std::str::from_utf8(reason).is_err() {
            return Err(Violation::CloseReason);
        }
        Ok(Some(code))
    }
}

/// What the other side's bytes hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Payload of a binary message, or a part of it: this range of the buffer, now unmasked.
    /// Never empty.
    Payload(Range<usize>),
    /// A ping, to be answered by [`pong`] with the same payload.
    Ping(ControlPayload),
    /// A pong, which asks for nothing.
    Pong,
    /// The other side closes, and gives this status code or none. Answer it and end the connection.
    Close(Option<u16>),
}

/// What a call to [`Unwrapper::advance`] did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unwrapped {
    /// How many bytes at the front of the buffer are done with; go on behind them.
    pub taken: usize,
    /// What they held; `None` where all was taken and more is needed.
    pub event: Option<Event>,
}

/// Takes binary payload out of the other side's frames, in place and as it comes.
///
/// For MQTT over WebSocket, where frames and packets need not align (\[MQTT-6.0.0-4\] of MQTT), so
/// it tells no message ends. It holds no payload but that of one control frame. Behind a Close it
/// takes and drops all, §5.5.1; behind a violation it gives the same again.
#[derive(Debug, Clone)]
pub struct Unwrapper {
    sender: Role,
    /// A fragmented message waits for its continuation.
    unfinished: bool,
    state: State,
}

#[derive(Debug, Clone)]
enum State {
    Head(Head),
    Payload(Payload),
    Closed,
    Failed(Violation),
}

#[derive(Debug, Clone)]
struct Payload {
    opcode: Opcode,
    left: u64,
    mask: [u8; 4],
    control: ControlPayload,
}

impl Unwrapper {
    /// For the frames of `sender`.
    #[must_use]
    pub fn new(sender: Role) -> Self {
        Self {
            sender,
            unfinished: false,
            state: State::Head(Head::default()),
        }
    }

    /// Takes bytes up to the next event. Call it again with `buffer[taken..]` while there is one.
    ///
    /// # Errors
    ///
    /// At the first byte that shows a violation. Payload before it has been given.
    pub fn advance(&mut self, buffer: &mut [u8]) -> Result<Unwrapped, Violation> {
        let mut taken = 0;
        loop {
            let rest = buffer.get_mut(taken..).unwrap_or_default();
            let step = self
                .step(rest)
                .inspect_err(|fault| self.state = State::Failed(*fault))?;
            let start = taken;
            taken += step.taken;
            match step.outcome {
                Outcome::Starved => return Ok(Unwrapped { taken, event: None }),
                Outcome::GoOn => {}
                Outcome::Data => {
                    return Ok(Unwrapped {
                        taken,
                        event: Some(Event::Payload(start..taken)),
                    });
                }
                Outcome::Control(event) => {
                    return Ok(Unwrapped {
                        taken,
                        event: Some(event),
                    });
                }
            }
        }
    }

    /// Whether a Close was taken.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed)
    }

    fn step(&mut self, buffer: &mut [u8]) -> Result<Step, Violation> {
        match &mut self.state {
            State::Failed(fault) => Err(*fault),
            State::Closed => Ok(Step {
                taken: buffer.len(),
                outcome: Outcome::Starved,
            }),
            State::Head(head) => {
                let mut head = *head;
                let mut rest: &[u8] = buffer;
                let complete = head.fill(&mut rest, |head| self.check(head))?;
                let taken = buffer.len() - rest.len();
                if !complete {
                    self.state = State::Head(head);
                    return Ok(Step {
                        taken,
                        outcome: Outcome::Starved,
                    });
                }
                let outcome = self.begin(&head)?;
                Ok(Step { taken, outcome })
            }
            State::Payload(payload) => {
                if buffer.is_empty() {
                    return Ok(Step {
                        taken: 0,
                        outcome: Outcome::Starved,
                    });
                }
                let taken = payload.take(buffer);
                let outcome = if payload.opcode.is_control() {
                    self.end_control()?
                } else {
                    self.end_data();
                    Outcome::Data
                };
                Ok(Step { taken, outcome })
            }
        }
    }

    /// Refuses a head as early as its bytes tell.
    fn check(&self, head: &Head) -> Result<(), Violation> {
        let first = head.first();
        let opcode = Opcode::of(first).ok_or(Violation::UnknownOpcode(first & 0x0F));
        if head.length == 1 {
            return self.check_first(first, opcode?);
        }
        if head.length == 2 {
            self.check_mask(head)?;
        }
        if head.length == 2 && opcode?.is_control() && head.size_bytes() > 0 {
            return Err(Violation::LongControl);
        }
        if head.has_size() {
            check_size(head)
        } else {
            Ok(())
        }
    }

    fn check_mask(&self, head: &Head) -> Result<(), Violation> {
        match (self.sender, head.is_masked()) {
            (Role::Client, true) | (Role::Server, false) => Ok(()),
            (Role::Client, false) => Err(Violation::NotMasked),
            (Role::Server, true) => Err(Violation::Masked),
        }
    }

    fn check_first(&self, first: u8, opcode: Opcode) -> Result<(), Violation> {
        if first & RESERVED != 0 {
            return Err(Violation::ReservedBits);
        }
        match opcode {
            Opcode::Close | Opcode::Ping | Opcode::Pong if first & FIN == 0 => {
                Err(Violation::FragmentedControl)
            }
            Opcode::Continuation if !self.unfinished => Err(Violation::UnexpectedContinuation),
            Opcode::Text | Opcode::Binary if self.unfinished => Err(Violation::UnfinishedMessage),
            Opcode::Text => Err(Violation::Text),
            Opcode::Continuation | Opcode::Binary | Opcode::Close | Opcode::Ping | Opcode::Pong => {
                Ok(())
            }
        }
    }

    /// Goes from a complete, checked head to its payload.
    fn begin(&mut self, head: &Head) -> Result<Outcome, Violation> {
        let first = head.first();
        let opcode = Opcode::of(first).ok_or(Violation::UnknownOpcode(first & 0x0F))?;
        let left = head.size();
        if !opcode.is_control() {
            self.unfinished = first & FIN == 0;
        }
        let control = ControlPayload::EMPTY;
        self.state = State::Payload(Payload {
            opcode,
            left,
            mask: head.mask(),
            control,
        });
        if opcode.is_control() {
            return self.end_control();
        }
        self.end_data();
        Ok(Outcome::GoOn)
    }

    /// Ends a data frame if its payload is all there.
    fn end_data(&mut self) {
        let State::Payload(Payload { left: 0, .. }) = self.state else {
            return;
        };
        self.state = State::Head(Head::default());
    }

    /// Ends a control frame if its payload is all there, and gives what it says.
    fn end_control(&mut self) -> Result<Outcome, Violation> {
        let State::Payload(Payload {
            left: 0,
            opcode,
            control,
            ..
        }) = self.state
        else {
            return Ok(Outcome::GoOn);
        };
        self.state = State::Head(Head::default());
        let event = match opcode {
            Opcode::Ping => Event::Ping(control),
            Opcode::Close => {
                let code = control.close_code()?;
                self.state = State::Closed;
                Event::Close(code)
            }
            Opcode::Pong | Opcode::Continuation | Opcode::Text | Opcode::Binary => Event::Pong,
        };
        Ok(Outcome::Control(event))
    }
}

/// A message may be of any size, since none of it is held; but its length has one form.
fn check_size(head: &Head) -> Result<(), Violation> {
    let size = head.size();
    let shortest = match head.size_bytes() {
        2 => size > 125,
        8 => size > u64::from(u16::MAX) && size >> 63 == 0,
        _ => true,
    };
    if shortest {
        Ok(())
    } else {
        Err(Violation::Length)
    }
}

struct Step {
    taken: usize,
    outcome: Outcome,
}

enum Outcome {
    /// All bytes were taken.
    Starved,
    /// There is no event yet, but bytes may be left.
    GoOn,
    /// The bytes taken are payload.
    Data,
    /// A control frame is complete.
    Control(Event),
}

impl Payload {
    /// Unmasks what of `buffer` belongs to this frame, and gives how much that is.
    fn take(&mut self, buffer: &mut [u8]) -> usize {
        let count = usize::try_from(self.left)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        let part = buffer.get_mut(..count).unwrap_or_default();
        if self.mask != [0; 4] {
            unmask(part, self.mask);
        }
        if self.opcode.is_control() {
            self.control.push(part);
        }
        self.mask.rotate_left(count % 4);
        self.left -= count as u64;
        count
    }
}

/// Masks or unmasks `payload`, whose first byte goes with the first byte of `mask`, §5.3.
pub fn unmask(payload: &mut [u8], mask: [u8; 4]) {
    let [a, b, c, d] = mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (chunks, tail) = payload.as_chunks_mut::<8>();
    for chunk in chunks {
        *chunk = (u64::from_ne_bytes(*chunk) ^ wide).to_ne_bytes();
    }
    for (byte, key) in tail.iter_mut().zip(mask.into_iter().cycle()) {
        *byte ^= key;
    }
}

/// Appends a whole frame to `out`: as a server sends it or, with a mask, as a client does.
pub fn append(out: &mut Vec<u8>, opcode: Opcode, payload: &[u8], mask: Option<[u8; 4]>) {
    let mut head = header(opcode, payload.len() as u64);
    if let Some(mask) = mask {
        head.mask_with(mask);
    }
    let start = out.len() + head.as_bytes().len();
    out.reserve_exact(head.as_bytes().len() + payload.len());
    out.extend_from_slice(head.as_bytes());
    out.extend_from_slice(payload);
    if let (Some(mask), Some(payload)) = (mask, out.get_mut(start..)) {
        unmask(payload, mask);
    }
}

/// The head of a frame: two to fourteen bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHeader {
    bytes: [u8; 14],
    length: u8,
}

impl FrameHeader {
    fn mask_with(&mut self, mask: [u8; 4]) {
        self.bytes[1] |= MASKED;
        self.push(&mask);
    }

    fn push(&mut self, bytes: &[u8]) {
        let free = self.bytes.iter_mut().skip(usize::from(self.length));
        for (place, byte) in free.zip(bytes) {
            *place = *byte;
            self.length += 1;
        }
    }

    /// The bytes to send before the payload.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes
            .get(..usize::from(self.length))
            .unwrap_or_default()
    }
}

/// The head of a whole, unmasked frame with `size` bytes of payload, §5.2.
#[must_use]
pub fn header(opcode: Opcode, size: u64) -> FrameHeader {
    let mut header = FrameHeader {
        bytes: [0; 14],
        length: 0,
    };
    header.push(&[FIN | opcode as u8]);
    let [.., high, low] = size.to_be_bytes();
    match size {
        0..=125 => header.push(&[low]),
        126..=0xFFFF => header.push(&[126, high, low]),
        _ => {
            header.push(&[127]);
            header.push(&size.to_be_bytes());
        }
    }
    header
}

/// The pong by which a server answers a ping, §5.5.3.
#[must_use]
pub fn pong(ping: &ControlPayload) -> Vec<u8> {
    control(Opcode::Pong, ping.as_bytes())
}

/// A server's Close with a status code, §5.5.1, and a reason, which is cut at 123 bytes.
#[must_use]
pub fn close(code: u16, reason: &str) -> Vec<u8> {
    let mut ends = (0..=reason.len().min(MAX_CONTROL - 2)).rev();
    let reason = ends.find_map(|end| reason.get(..end)).unwrap_or_default();
    control(
        Opcode::Close,
        &[code.to_be_bytes().as_slice(), reason.as_bytes()].concat(),
    )
}

fn control(opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    [header(opcode, payload.len() as u64).as_bytes(), payload].concat()
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use tokio_tungstenite::tungstenite::protocol::frame::coding::{Control, Data, OpCode};
    use tokio_tungstenite::tungstenite::protocol::frame::{Frame, FrameHeader as OtherHeader};

    use super::{
        ControlPayload, Event, FrameScanner, Opcode, Role, Unwrapper, Violation, append, close,
        header, pong, unmask,
    };

    const MASK: [u8; 4] = [0x37, 0xFA, 0x21, 0x3D];

    /// A masked frame with this first byte, as a client sends it.
    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut head = header(Opcode::Binary, payload.len() as u64)
            .as_bytes()
            .to_vec();
        head[0] = first;
        head[1] |= 0x80;
        let mut payload = payload.to_vec();
        unmask(&mut payload, MASK);
        [head.as_slice(), &MASK, &payload].concat()
    }

    #[derive(Debug, Default, PartialEq, Eq)]
    struct Seen {
        payload: Vec<u8>,
        pings: Vec<Vec<u8>>,
        pongs: usize,
        closed: Option<Option<u16>>,
        fault: Option<Violation>,
    }

    /// What is seen of `stream` when it comes in pieces of these sizes.
    fn unwrap(stream: &[u8], piece: impl FnMut() -> usize) -> Seen {
        unwrap_of(Role::Client, stream, piece)
    }

    fn unwrap_of(sender: Role, stream: &[u8], mut piece: impl FnMut() -> usize) -> Seen {
        let mut seen = Seen::default();
        let mut unwrapper = Unwrapper::new(sender);
        let mut unread = stream;
        while !unread.is_empty() {
            let (read, behind) = unread.split_at(piece().clamp(1, unread.len()));
            unread = behind;
            let mut buffer = read.to_vec();
            let mut at = 0;
            loop {
                let step = match unwrapper.advance(&mut buffer[at..]) {
                    Ok(step) => step,
                    Err(fault) => {
                        assert_eq!(unwrapper.advance(&mut []), Err(fault));
                        seen.fault = Some(fault);
                        return seen;
                    }
                };
                match step.event {
                    None => {
                        assert_eq!(at + step.taken, buffer.len());
                        break;
                    }
                    Some(Event::Payload(range)) => {
                        assert!(!range.is_empty() && range.end == step.taken);
                        seen.payload.extend_from_slice(&buffer[at..][range]);
                    }
                    Some(Event::Ping(payload)) => seen.pings.push(payload.as_bytes().to_vec()),
                    Some(Event::Pong) => seen.pongs += 1,
                    Some(Event::Close(code)) => seen.closed = Some(code),
                }
                at += step.taken;
            }
        }
        seen
    }

    fn whole(stream: &[u8]) -> Seen {
        unwrap(stream, || usize::MAX)
    }

    fn sizes(seed: u64) -> impl FnMut() -> usize {
        let mut state = seed;
        move || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 33) as usize % 60 + 1
        }
    }

    fn fragmented_stream() -> Vec<u8> {
        [
            frame(0x02, b"one "),
            frame(0x89, b"are you there"),
            frame(0x00, b""),
            frame(0x00, &[b'.'; 300]),
            frame(0x8A, b""),
            frame(0x80, b"two "),
            frame(0x82, b""),
            frame(0x82, &vec![b'x'; 70_000]),
            frame(0x88, b"\x03\xE8bye"),
            b"anything".to_vec(),
        ]
        .concat()
    }

    #[test]
    fn payload_is_taken_out_of_fragments_and_between_control_frames() {
        let seen = whole(&fragmented_stream());
        let expected = [
            b"one ".as_slice(),
            &[b'.'; 300],
            b"two ",
            &vec![b'x'; 70_000],
        ]
        .concat();
        assert_eq!(seen.payload, expected);
        assert_eq!(seen.pings, [b"are you there"]);
        assert_eq!(
            (seen.pongs, seen.closed, seen.fault),
            (1, Some(Some(1000)), None)
        );
    }

    #[test]
    fn a_stream_is_unwrapped_alike_however_it_is_split() {
        let stream = fragmented_stream();
        let expected = whole(&stream);
        assert_eq!(unwrap(&stream, || 1), expected);
        for seed in 0..200 {
            assert_eq!(unwrap(&stream, sizes(seed)), expected);
        }
        for cut in 0..600 {
            let mut first = Some(cut);
            assert_eq!(
                unwrap(&stream, || first.take().unwrap_or(usize::MAX)),
                expected
            );
        }
    }

    #[test]
    fn payload_is_given_before_its_frame_is_whole() {
        let mut bytes = frame(0x82, b"streaming");
        let mut unwrapper = Unwrapper::new(Role::Client);
        let step = unwrapper.advance(&mut bytes[..9]).expect("legal");
        assert_eq!((step.taken, step.event), (9, Some(Event::Payload(6..9))));
        assert_eq!(&bytes[6..9], b"str");
        let step = unwrapper.advance(&mut bytes[9..]).expect("legal");
        assert_eq!((step.taken, step.event), (6, Some(Event::Payload(0..6))));
        assert_eq!(&bytes[9..], b"eaming");
    }

    #[test]
    fn a_broken_rule_is_named_with_its_close_code() {
        let control = |payload: &[u8]| frame(0x88, payload);
        let cases: Vec<(Vec<u8>, Violation, u16)> = vec![
            (vec![0xC2], Violation::ReservedBits, 1002),
            (vec![0x92], Violation::ReservedBits, 1002),
            (vec![0x83], Violation::UnknownOpcode(3), 1002),
            (vec![0x8F], Violation::UnknownOpcode(15), 1002),
            (vec![0x82, 0x05], Violation::NotMasked, 1002),
            (vec![0x09], Violation::FragmentedControl, 1002),
            (vec![0x89, 0xFE], Violation::LongControl, 1002),
            (vec![0x88, 0xFF], Violation::LongControl, 1002),
            (vec![0x80], Violation::UnexpectedContinuation, 1002),
            (
                [frame(0x82, b"a"), vec![0x80]].concat(),
                Violation::UnexpectedContinuation,
                1002,
            ),
            (
                [frame(0x02, b"a"), vec![0x82]].concat(),
                Violation::UnfinishedMessage,
                1002,
            ),
            (vec![0x82, 0xFE, 0, 125], Violation::Length, 1002),
            (
                vec![0x82, 0xFF, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF],
                Violation::Length,
                1002,
            ),
            (
                vec![0x82, 0xFF, 0x80, 0, 0, 0, 0, 1, 0, 0],
                Violation::Length,
                1002,
            ),
            (vec![0x81], Violation::Text, 1003),
            (vec![0x01], Violation::Text, 1003),
            (control(b"\x03"), Violation::CloseCode, 1002),
            (control(b"\x03\xED"), Violation::CloseCode, 1002),
            (control(b"\x03\xEC"), Violation::CloseCode, 1002),
            (control(b"\x00\x00"), Violation::CloseCode, 1002),
            (control(b"\x13\x88"), Violation::CloseCode, 1002),
            (control(b"\x03\xE8\xFF"), Violation::CloseReason, 1007),
        ];
        for (stream, fault, code) in cases {
            assert_eq!(whole(&stream).fault, Some(fault), "{stream:x?}");
            assert_eq!(unwrap(&stream, || 1).fault, Some(fault), "{stream:x?}");
            assert_eq!(fault.close_code(), code);
            let early = &stream[..stream.len() - 1];
            assert_eq!(whole(early).fault, None, "known no earlier: {stream:x?}");
        }
    }

    #[test]
    fn a_close_may_be_empty_and_codes_of_applications_pass() {
        assert_eq!(whole(&frame(0x88, b"")).closed, Some(None));
        for code in [1000, 1001, 1003, 1007, 1011, 1014, 3000, 4999_u16] {
            assert_eq!(
                whole(&frame(0x88, &code.to_be_bytes())).closed,
                Some(Some(code))
            );
        }
    }

    #[test]
    fn frames_of_another_implementation_are_unwrapped() {
        for size in [0, 1, 125, 126, 127, 65_535, 65_536, 100_000] {
            let payload: Vec<u8> = (0..size).map(|index| index as u8).collect();
            let mut other = Frame::message(payload.clone(), OpCode::Data(Data::Binary), true);
            other.header_mut().mask = Some(MASK);
            let mut stream = Vec::new();
            other.format(&mut stream).expect("a Vec takes all");
            assert_eq!(whole(&stream).payload, payload);
        }
    }

    #[test]
    fn a_servers_frames_are_unwrapped_and_must_not_be_masked() {
        let mut stream = Vec::new();
        append(&mut stream, Opcode::Binary, b"one ", None);
        append(&mut stream, Opcode::Ping, b"there?", None);
        append(&mut stream, Opcode::Binary, &[b'x'; 70_000], None);
        stream.extend(close(1000, ""));
        let expected = [b"one ".as_slice(), &[b'x'; 70_000]].concat();
        for step in [1, 7, usize::MAX] {
            let seen = unwrap_of(Role::Server, &stream, || step);
            assert_eq!(seen.payload, expected);
            assert_eq!(seen.pings, [b"there?"]);
            assert_eq!((seen.closed, seen.fault), (Some(Some(1000)), None));
        }
        let masked = unwrap_of(Role::Server, &[0x82, 0x81], || 1);
        assert_eq!(masked.fault, Some(Violation::Masked));
        assert_eq!(Violation::Masked.close_code(), 1002);
    }

    #[test]
    fn a_clients_frames_are_masked_as_others_mask_them() {
        for size in [0, 1, 125, 126, 65_535, 65_536] {
            let payload: Vec<u8> = (0..size).map(|index: u32| index as u8).collect();
            let mut ours = Vec::new();
            append(&mut ours, Opcode::Binary, &payload, Some(MASK));
            let mut other = Frame::message(payload.clone(), OpCode::Data(Data::Binary), true);
            other.header_mut().mask = Some(MASK);
            let mut theirs = Vec::new();
            other.format(&mut theirs).expect("a Vec takes all");
            assert!(ours == theirs, "{size}");
        }
    }

    #[test]
    fn another_implementation_reads_our_frames() {
        for size in [0, 1, 125, 126, 65_535, 65_536, 1 << 40] {
            let ours = header(Opcode::Binary, size);
            let parsed = OtherHeader::parse(&mut Cursor::new(ours.as_bytes()));
            let (parsed, length) = parsed.expect("well-formed").expect("complete");
            assert_eq!(length, size);
            assert!(parsed.is_final && parsed.mask.is_none());
            assert_eq!(parsed.opcode, OpCode::Data(Data::Binary));
        }
        let bytes = close(1008, "no");
        let parsed = OtherHeader::parse(&mut Cursor::new(&bytes));
        let (parsed, length) = parsed.expect("well-formed").expect("complete");
        assert_eq!(
            (parsed.opcode, length),
            (OpCode::Control(Control::Close), 4)
        );
    }

    #[test]
    fn control_frames_are_built_within_their_size() {
        assert_eq!(close(1002, ""), [0x88, 2, 0x03, 0xEA]);
        let long = close(1008, &"é".repeat(100));
        assert_eq!((long.len(), long[1]), (2 + 2 + 122, 124));
        let mut payload = ControlPayload::EMPTY;
        payload.push(b"echo");
        assert_eq!(pong(&payload), b"\x8A\x04echo");
    }

    #[test]
    fn unmasking_is_the_rfcs_at_every_length_and_phase() {
        for length in 0..70 {
            let plain: Vec<u8> = (0..length).collect();
            let mut masked = plain.clone();
            unmask(&mut masked, MASK);
            for (index, byte) in masked.iter().enumerate() {
                assert_eq!(*byte, plain[index] ^ MASK[index % 4]);
            }
        }
    }

    /// Where frames end in `stream`, seen in pieces of these sizes.
    fn boundaries(stream: &[u8], mut piece: impl FnMut() -> usize) -> (Option<usize>, bool, bool) {
        let mut scanner = FrameScanner::new();
        let (mut at, mut last) = (0, None);
        while at < stream.len() {
            let end = at.saturating_add(piece().max(1)).min(stream.len());
            if let Some(boundary) = scanner.advance(&stream[at..end]) {
                last = Some(at + boundary);
            }
            at = end;
        }
        (last, scanner.at_boundary(), scanner.close_seen())
    }

    #[test]
    fn a_tunnel_knows_where_frames_end_on_both_sides() {
        let masked = [frame(0x81, b"text"), frame(0xC2, &[0; 200])].concat();
        let bare = [
            header(Opcode::Text, 3).as_bytes(),
            b"abc",
            header(Opcode::Binary, 70_000).as_bytes(),
            &[0; 70_000],
            &[0x82, 0],
        ]
        .concat();
        for stream in [masked, bare] {
            assert_eq!(
                boundaries(&stream, || usize::MAX),
                (Some(stream.len()), true, false)
            );
            let torn = [stream.as_slice(), &[0x82]].concat();
            assert_eq!(
                boundaries(&torn, || usize::MAX),
                (Some(stream.len()), false, false)
            );
            let closed = [stream.as_slice(), &[0x88]].concat();
            assert_eq!(boundaries(&closed, || 5), (Some(stream.len()), false, true));
        }
        assert_eq!(boundaries(&[0x82, 5, 0], || 1), (None, false, false));
    }

    #[test]
    fn a_tunnel_judges_no_bytes_and_sees_them_alike_however_split() {
        let mut state = 9_u64;
        for _ in 0..2_000 {
            let stream: Vec<u8> = (0..200)
                .map(|_| {
                    state = state
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1);
                    // Mostly small lengths, so that frames end.
                    if state >> 62 == 0 {
                        (state >> 40) as u8
                    } else {
                        (state >> 45) as u8 & 0x0F
                    }
                })
                .collect();
            let expected = boundaries(&stream, || usize::MAX);
            assert_eq!(boundaries(&stream, || 1), expected);
            assert_eq!(boundaries(&stream, sizes(state)), expected);
        }
    }
}
