//! The texts of one exchange after transformation chains, each computed at most once, and which patterns they can
//! match.
//!
//! Most values hold nothing that a chain could change: such a text has one form, is looked at once by the prefilter,
//! and what that pass finds holds for every chain. So the cost of a benign request hardly depends on the number of
//! rules.

use std::{borrow::Cow, cell::Cell};

use super::{
    literals::Classes,
    prefilter::{PatternId, mask_of},
    program::{ChainId, GroupId, Program},
    subject::Subject,
};
use crate::{
    decode::Transformation,
    memo::{Denials, Tag},
};

/// A text after some transformation chain; texts that the chain does not change share one.
struct Form {
    bytes: Bytes,
    mask: u64,
    /// The form that it differs from in case only, to which the prefilter is blind.
    twin: Option<usize>,
    /// What stands for the text in [`Scratch::denials`]; the outer `None`: nobody has asked yet.
    tag: Option<Option<Tag>>,
    /// Where in [`Scratch::hits`] the patterns are that the prefilter saw; `None`: it has not looked yet.
    hits: Option<(usize, usize)>,
}

enum Bytes {
    /// Those of the text with this index.
    Text(usize),
    Own(Vec<u8>),
}

/// A text that a pattern may match.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Candidate {
    pub(super) text: usize,
    pub(super) form: usize,
}

/// Memory that is used again for the next exchange.
#[derive(Default)]
struct Scratch {
    forms: Vec<Form>,
    /// The form of text t after chain c is at t × chains + c, plus one; 0 is not known yet.
    form_of: Vec<u32>,
    /// A bit for each group that each entry belongs to, entry after entry.
    groups: Vec<u64>,
    /// For each group where in `listed` its texts are, once somebody asked; dropped when entries are added.
    lists: Vec<Option<(usize, usize)>>,
    listed: Vec<usize>,
    /// The masks of the texts, close together.
    masks: Vec<u64>,
    /// How many texts each chain has been looked for patterns in.
    done: Vec<usize>,
    /// For each pattern its last candidate, plus one.
    heads: Vec<u32>,
    /// Candidates with the place of the one before them for the same pattern, plus one.
    candidates: Vec<(Candidate, u32)>,
    hits: Vec<u32>,
    /// For each pattern the last form it was a hit of, plus one.
    last: Vec<u32>,
    /// Tests that failed on a text before, perhaps in another exchange.
    denials: Denials,
}

thread_local! {
    static SCRATCH: Cell<Option<Box<Scratch>>> = const { Cell::new(None) };
}

/// All forms so far.
pub(super) struct Forms<'p, 'a> {
    program: &'p Program,
    /// 0 for the phases of the request, 1 for the others.
    stage: usize,
    pub(super) subject: Subject<'a>,
    scratch: Box<Scratch>,
}

impl<'p, 'a> Forms<'p, 'a> {
    pub(super) fn new(program: &'p Program, stage: usize, subject: Subject<'a>) -> Self {
        let patterns = program.prefilters.get(stage).map_or(0, super::prefilter::Prefilter::len);
        let mut scratch = SCRATCH.take().unwrap_or_default();
        scratch.forms.clear();
        scratch.form_of.clear();
        scratch.candidates.clear();
        scratch.hits.clear();
        scratch.groups.clear();
        scratch.masks.clear();
        scratch.done.clear();
        scratch.done.resize(program.chains.len(), 0);
        for per_pattern in [&mut scratch.heads, &mut scratch.last] {
            per_pattern.clear();
            per_pattern.resize(patterns, 0);
        }
        Self { program, stage, subject, scratch }
    }

    /// Leaves its memory to the next one on this thread.
    pub(super) fn finish(self) {
        /// Most forms whose memory is kept.
        const MOST: usize = 4096;
        if self.scratch.forms.capacity() <= MOST && self.scratch.form_of.capacity() <= MOST * 64 {
            SCRATCH.set(Some(self.scratch));
        }
    }

    pub(super) fn bytes(&self, form: usize) -> &[u8] {
        match self.scratch.forms.get(form).map(|form| &form.bytes) {
            Some(Bytes::Text(text)) => self.subject.texts.get(*text).map_or(b"", |text| &text.bytes),
            Some(Bytes::Own(bytes)) => bytes,
            None => b"",
        }
    }

    pub(super) fn mask(&self, form: usize) -> u64 {
        self.scratch.forms.get(form).map_or(0, |form| form.mask)
    }

    /// What stands for a form when tests that failed are remembered.
    pub(super) fn tag(&mut self, form: usize) -> Option<Tag> {
        if let Some(known) = self.scratch.forms.get(form)?.tag {
            return known;
        }
        let tag = self.scratch.denials.tag(self.bytes(form));
        self.scratch.forms.get_mut(form)?.tag = Some(tag);
        tag
    }

    /// Tests that failed on texts.
    pub(super) fn denials(&mut self) -> &mut Denials {
        &mut self.scratch.denials
    }

    /// Whether the prefilter sees any text of `chain` that `pattern` may match.
    pub(super) fn may_match(&mut self, chain: ChainId, pattern: PatternId) -> bool {
        self.search(chain);
        self.scratch.heads.get(pattern).is_some_and(|head| *head != 0)
    }

    /// The texts of `chain` that `pattern` may match, in order, into `out`.
    pub(super) fn candidates(&mut self, chain: ChainId, pattern: PatternId, out: &mut Vec<Candidate>) {
        out.clear();
        self.search(chain);
        let mut next = self.scratch.heads.get(pattern).copied().unwrap_or(0);
        while let Some((candidate, before)) =
            next.checked_sub(1).and_then(|at| self.scratch.candidates.get(at as usize))
        {
            out.push(*candidate);
            next = *before;
        }
        out.sort_unstable();
        out.dedup();
    }

    /// Takes note of the entries that were added.
    pub(super) fn take_in(&mut self) {
        let scratch = &mut *self.scratch;
        scratch.lists.clear();
        scratch.lists.resize(self.program.groups.len(), None);
        scratch.listed.clear();
        scratch.masks.extend(self.subject.texts.iter().skip(scratch.masks.len()).map(|text| text.mask));
        scratch.form_of.resize(self.subject.texts.len() * self.program.chains.len(), 0);
        let words = self.program.groups.len().div_ceil(64).max(1);
        for entry in self.subject.entries.iter().skip(scratch.groups.len() / words) {
            let start = scratch.groups.len();
            scratch.groups.resize(start + words, 0);
            let Some(bits) = scratch.groups.get_mut(start..) else { continue };
            let Some(membership) = self.program.memberships.get(entry.source as usize) else { continue };
            bits.iter_mut().zip(&membership.all).for_each(|(word, all)| *word = *all);
            for (id, more) in &membership.some {
                let group = self.program.groups.get(*id);
                if group.is_some_and(|group| group.selects(entry.source, &entry.name)) {
                    bits.iter_mut().zip(more).for_each(|(word, more)| *word |= more);
                }
            }
        }
    }

    /// Whether an entry belongs to a group.
    fn belongs(&self, entry: usize, group: GroupId) -> bool {
        let words = self.program.groups.len().div_ceil(64).max(1);
        let word = self.scratch.groups.get(entry * words + group / 64).copied().unwrap_or(0);
        word & (1 << (group % 64)) != 0
    }

    /// All texts of the group after `chain` that have the bytes that are needed, in order, into `out`.
    pub(super) fn members(
        &mut self,
        id: GroupId,
        chain: ChainId,
        classes: &Classes,
        out: &mut Vec<Candidate>,
    ) {
        out.clear();
        let Some((start, end)) = self.listed(id) else { return };
        let trigger = self.program.chains.get(chain).map_or(0, |chain| chain.trigger);
        for place in start..end {
            let Some(text) = self.scratch.listed.get(place).copied() else { return };
            let mask = self.scratch.masks.get(text).copied().unwrap_or(0);
            if mask & trigger == 0 && !classes.hold(mask) {
                continue;
            }
            if let Some(form) = self.form(chain, text) {
                out.push(Candidate { text, form });
            }
        }
        // Two layers of one entry can have the same form.
        if self.program.groups.get(id).is_some_and(|group| group.layered) {
            let entry = |candidate: &Candidate| self.subject.texts.get(candidate.text).map(|text| text.entry);
            out.dedup_by(|later, earlier| later.form == earlier.form && entry(later) == entry(earlier));
        }
    }

    /// Where the texts of a group are listed.
    fn listed(&mut self, id: GroupId) -> Option<(usize, usize)> {
        if let Some(known) = *self.scratch.lists.get(id)? {
            return Some(known);
        }
        let group = self.program.groups.get(id)?;
        let start = self.scratch.listed.len();
        for (source, range) in &self.subject.runs {
            if !group.touched.contains(*source) {
                continue;
            }
            for entry in range.clone() {
                if !self.belongs(entry, id) {
                    continue;
                }
                let layers = self.subject.entries.get(entry)?.layers.clone();
                let count = if group.layered { layers.len() } else { 1 };
                self.scratch.listed.extend(layers.take(count));
            }
        }
        let found = (start, self.scratch.listed.len());
        *self.scratch.lists.get_mut(id)? = Some(found);
        Some(found)
    }

    /// Looks for patterns in those texts of `chain` that were not looked at yet.
    fn search(&mut self, chain: ChainId) {
        self.search_plain();
        if chain == 0 {
            return;
        }
        let Some(from) = self.scratch.done.get(chain).copied() else { return };
        let texts = self.subject.texts.len();
        if from == texts {
            return;
        }
        if let Some(done) = self.scratch.done.get_mut(chain) {
            *done = texts;
        }
        let program = self.program;
        let trigger = program.chains.get(chain).map_or(0, |chain| chain.trigger);
        let watched = program.watched.get(self.stage).and_then(|chains| chains.get(chain));
        for text in from..texts {
            if self.scratch.masks.get(text).is_some_and(|mask| mask & trigger != 0)
                && watched.is_some_and(|groups| self.is_of(groups, text))
                && let Some(form) = self.form(chain, text)
            {
                self.note(text, form, |watched| watched == chain);
            }
        }
    }

    /// Looks at the new texts themselves, for every chain that does not change them.
    fn search_plain(&mut self) {
        let from = self.scratch.done.first().copied().unwrap_or(0);
        let texts = self.subject.texts.len();
        if from == texts {
            return;
        }
        if let Some(done) = self.scratch.done.first_mut() {
            *done = texts;
        }
        let program = self.program;
        let watched = program.watched.get(self.stage).and_then(|chains| chains.last());
        for text in from..texts {
            let mask = self.scratch.masks.get(text).copied().unwrap_or(0);
            if watched.is_some_and(|groups| self.is_of(groups, text))
                && let Some(form) = self.form(0, text)
            {
                self.note(text, form, |watched| {
                    program.chains.get(watched).is_some_and(|chain| mask & chain.trigger == 0)
                });
            }
        }
    }

    /// Whether the entry of this text belongs to one of the groups.
    fn is_of(&self, groups: &[u64], text: usize) -> bool {
        let Some(entry) = self.subject.texts.get(text).map(|text| text.entry) else { return false };
        let words = groups.len();
        let own = self.scratch.groups.get(entry * words..(entry + 1) * words).unwrap_or_default();
        own.iter().zip(groups).any(|(own, wanted)| own & wanted != 0)
    }

    /// Makes the text a candidate of the patterns that its form may match, if their chain is `wanted`.
    fn note(&mut self, text: usize, form: usize, wanted: impl Fn(ChainId) -> bool) {
        let Some((start, end)) = self.look(form) else { return };
        let Some(at) = self.subject.texts.get(text).map(|text| text.entry) else { return };
        let Some(entry) = self.subject.entries.get(at) else { return };
        let first = entry.layers.start == text;
        let Some(watches) = self.program.watches.get(self.stage) else { return };
        for pattern in self.scratch.hits.get(start..end).unwrap_or_default() {
            let Some(watch) = watches.get(*pattern as usize).filter(|watch| wanted(watch.chain)) else {
                continue;
            };
            let layered = || self.program.groups.get(watch.group).is_some_and(|group| group.layered);
            if self.belongs(at, watch.group) && (first || layered()) {
                let Some(head) = self.scratch.heads.get_mut(*pattern as usize) else { continue };
                self.scratch.candidates.push((Candidate { text, form }, *head));
                *head = u32::try_from(self.scratch.candidates.len()).unwrap_or(0);
            }
        }
    }

    /// What the prefilter sees in a form, looked at once.
    fn look(&mut self, form: usize) -> Option<(usize, usize)> {
        if let Some(known) = self.scratch.forms.get(form)?.hits {
            return Some(known);
        }
        if let Some(twin) = self.scratch.forms.get(form)?.twin {
            let known = self.look(twin)?;
            self.scratch.forms.get_mut(form)?.hits = Some(known);
            return Some(known);
        }
        let prefilter = self.program.prefilters.get(self.stage)?;
        let start = self.scratch.hits.len();
        let stamp = u32::try_from(form + 1).ok()?;
        let bytes = match &self.scratch.forms.get(form)?.bytes {
            Bytes::Text(text) => &*self.subject.texts.get(*text)?.bytes,
            Bytes::Own(bytes) => bytes,
        };
        let (hits, last) = (&mut self.scratch.hits, &mut self.scratch.last);
        prefilter.look(bytes, |pattern| {
            if let Some(last) = last.get_mut(pattern as usize).filter(|last| **last != stamp) {
                *last = stamp;
                hits.push(pattern);
                return true;
            }
            false
        });
        let range = (start, self.scratch.hits.len());
        self.scratch.forms.get_mut(form)?.hits = Some(range);
        Some(range)
    }

    /// The form of a text after a chain.
    pub(super) fn form(&mut self, chain: ChainId, text: usize) -> Option<usize> {
        let chains = self.program.chains.len();
        let place = text * chains + chain;
        if let Some(known) = self.scratch.form_of.get(place).and_then(|known| known.checked_sub(1)) {
            return usize::try_from(known).ok();
        }
        let index = if chain == 0 {
            self.plain(text)?
        } else {
            let step = self.program.chains.get(chain)?;
            if self.scratch.masks.get(text)? & step.trigger == 0 {
                self.form(0, text)?
            } else {
                let parent = self.form(step.parent, text)?;
                let own = super::trigger::trigger(step.step);
                let changed = match self.mask(parent) & own {
                    0 => None,
                    _ => match step.step.apply(self.bytes(parent)) {
                        Cow::Borrowed(_) => None,
                        Cow::Owned(bytes) => Some(bytes),
                    },
                };
                match changed {
                    None => parent,
                    Some(bytes) => {
                        let mask = mask_of(&bytes);
                        let case = matches!(step.step, Transformation::Lowercase | Transformation::Uppercase);
                        let twin = case.then_some(parent);
                        self.scratch.forms.push(Form {
                            bytes: Bytes::Own(bytes),
                            mask,
                            twin,
                            tag: None,
                            hits: None,
                        });
                        self.scratch.forms.len() - 1
                    }
                }
            }
        };
        *self.scratch.form_of.get_mut(place)? = u32::try_from(index + 1).ok()?;
        Some(index)
    }

    /// The form of the text itself; a text that repeats the one before it shares its form.
    fn plain(&mut self, text: usize) -> Option<usize> {
        let this = self.subject.texts.get(text)?;
        let before = text.checked_sub(1).and_then(|before| self.subject.texts.get(before));
        if before.is_some_and(|before| before.mask == this.mask && before.bytes == this.bytes) {
            return self.form(0, text - 1);
        }
        self.scratch.forms.push(Form {
            bytes: Bytes::Text(text),
            mask: this.mask,
            twin: None,
            tag: None,
            hits: None,
        });
        Some(self.scratch.forms.len() - 1)
    }
}
