//! Ways in which a multipart body departs from what browsers write, under the names that SecLang has for them.

/// One way in which a multipart body departs from what browsers write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Departure {
    /// The boundary stands in quotation marks; some programs write it so.
    BoundaryQuoted,
    /// There is white space in the boundary, or around its equals sign.
    BoundaryWhitespace,
    /// Something stands before the first delimiter.
    DataBefore,
    /// Something follows the closing delimiter.
    DataAfter,
    /// A head line goes on in the next one.
    HeaderFolding,
    /// A head line goes on after a control character, or there is none that it could continue.
    InvalidHeaderFolding,
    /// A part without a head, without a disposition, or without a name.
    InvalidPart,
    /// Parsers disagree about where a quoted value ends.
    InvalidQuoting,
    /// A delimiter or head line ends in LF alone.
    LfLine,
    /// A delimiter or head line ends in CRLF, as all should.
    CrlfLine,
    /// Two parameters without a semicolon between them.
    MissingSemicolon,
    /// There are more parts than are looked at.
    TooManyParts,
    /// The delimiter stands where none can be: in the middle of a line, or with something behind it.
    UnmatchedBoundary,
}

/// A set of [`Departure`]s.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Departures(u16);

impl Departures {
    /// Adds one.
    pub fn insert(&mut self, departure: Departure) {
        self.0 |= 1 << departure as u16;
    }

    /// Adds one if `found`; returns `found`.
    pub(crate) fn note(&mut self, departure: Departure, found: bool) -> bool {
        if found {
            self.insert(departure);
        }
        found
    }

    /// Adds all of another set.
    pub fn extend(&mut self, other: Self) {
        self.0 |= other.0;
    }

    /// Whether this one is among them.
    pub fn contains(self, departure: Departure) -> bool {
        self.0 & (1 << departure as u16) != 0
    }
}
