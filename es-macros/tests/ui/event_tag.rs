use es_core::Event;

#[derive(Event)]
#[event(category = "booking", tag = "hotel:{hotel}")]
enum BookingEvent {
    #[event(name = "booking.made", tag = "room:{rom}")]
    Made { hotel: u8, room: u16 },
    #[event(name = "booking.open", tag = "room:{room")]
    Open { hotel: u8, room: u16 },
    #[event(name = "booking.format", tag = "room:{room:03}")]
    Format { hotel: u8, room: u16 },
    #[event(name = "booking.empty", tag = "")]
    Empty { hotel: u8 },
    #[event(name = "booking.control", tag = "a\nb")]
    Control { hotel: u8 },
    #[event(name = "booking.unquoted", tag = room)]
    Unquoted { hotel: u8 },
    #[event(name = "booking.function", tags = "room")]
    Function { hotel: u8 },
    #[event(name = "booking.lost")]
    Lost,
}

#[derive(Event)]
#[event(category = "note")]
enum NoteEvent {
    #[event(name = "note.taken", tag = "note:{0}")]
    Taken { text: String },
}

fn main() {}
