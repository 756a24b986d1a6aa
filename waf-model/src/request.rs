//! A borrowed, transport-free view of one request.

/// One request as the WAF sees it: the bytes that will be forwarded, nothing interpreted yet.
#[derive(Debug, Clone, Copy)]
pub struct RequestView<'a> {
    /// The method, upper case as sent.
    pub method: &'a str,
    /// The path exactly as on the wire, without the query.
    pub path: &'a [u8],
    /// The query exactly as on the wire, without the question mark.
    pub query: Option<&'a [u8]>,
    /// Protocol version as rules name it: `HTTP/1.0`, `HTTP/1.1`, `HTTP/2.0`.
    pub protocol: &'a str,
    /// Every header field in order of arrival; names are lower case.
    pub headers: &'a [Header<'a>],
    /// The part of the body that is inspected.
    pub body: BodyView<'a>,
    /// The client's address in text form, if known.
    pub client_address: &'a str,
}

/// One response as the WAF sees it.
#[derive(Debug, Clone, Copy)]
pub struct ResponseView<'a> {
    /// The status code.
    pub status: u16,
    /// Protocol version as rules name it: `HTTP/1.1`.
    pub protocol: &'a str,
    /// Every header field in order; names are lower case.
    pub headers: &'a [Header<'a>],
    /// The part of the body that is inspected.
    pub body: BodyView<'a>,
}

/// One header field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header<'a> {
    /// Lower-case field name.
    pub name: &'a str,
    /// Field value as received; any bytes.
    pub value: &'a [u8],
}

/// The inspected part of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BodyView<'a> {
    /// The first bytes of the body, up to the inspection window.
    pub bytes: &'a [u8],
    /// Whether `bytes` is the whole body.
    pub extent: BodyExtent,
}

/// Whether the inspected bytes are the whole body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyExtent {
    /// The whole body was seen.
    Complete,
    /// The body goes on beyond the inspection window.
    Truncated,
}

impl<'a> RequestView<'a> {
    /// The first value of header `name` (lower case), if present.
    pub fn header(&self, name: &str) -> Option<&'a [u8]> {
        self.headers.iter().find(|h| h.name == name).map(|h| h.value)
    }

    /// All values of header `name` (lower case), in order.
    pub fn header_all(&self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        self.headers.iter().filter(move |h| h.name == name).map(|h| h.value)
    }
}
