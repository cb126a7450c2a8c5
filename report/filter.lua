-- Captions become real figures; HTML tables become pandoc's own, in HTML too if they are lib.plots.table's, whose columns are
-- aligned here.

local function native(block)
  if block.format == "html" and (not FORMAT:match("html") or block.text:match('^%s*<table[^>]*class="dataframe report"')) then
    return pandoc.read(block.text, "html").blocks
  end
end

local function captioned(div)
  if not div.classes:includes("captioned") then return nil end
  local body, caption = pandoc.Blocks {}, pandoc.Blocks {}
  for _, block in ipairs(div.content) do
    if block.t == "Div" and block.classes:includes("caption") then caption:extend(block.content) else body:insert(block) end
  end
  if FORMAT == "typst" and #body == 1 and body[1].t == "Table" then
    body[1].caption = {long = caption}
    return body[1]
  end
  local kind = div.classes:includes("table") and "table" or "figure"
  return pandoc.Figure(body, {long = caption}, pandoc.Attr("", {kind}))
end

-- Whether a column holds words rather than numbers.
local function of_words(tbl, index)
  for _, body in ipairs(tbl.bodies) do
    for _, row in ipairs(body.body) do
      local text = row.cells[index] and pandoc.utils.stringify(row.cells[index].contents) or ""
      if text:match("^%a") and text ~= "diverged" and text ~= "used" then return true end
    end
  end
end

local function longest(tbl, index) -- text of a column, in characters
  local found = 8
  for _, body in ipairs(tbl.bodies) do
    for _, row in ipairs(body.body) do
      local text = row.cells[index] and pandoc.utils.stringify(row.cells[index].contents) or ""
      found = math.max(found, utf8.len(text) or #text)
    end
  end
  return found
end

-- A table with long texts takes the width of the page: its short columns as much as they need (no width, unless they are too
-- many), the others share the rest by the length of their texts, which take as many lines as they need.
local LONG, SHORT, ACROSS = 55, 24, 138 -- characters; the last are about as many as a page is wide
local function share_width(tbl)
  local lengths, of_short = {}, 0
  for index = 1, #tbl.colspecs do
    lengths[index] = longest(tbl, index)
    if lengths[index] <= SHORT then of_short = of_short + lengths[index] + 4 end
  end
  if math.max(table.unpack(lengths)) <= LONG then return end
  for index, spec in ipairs(tbl.colspecs) do
    local own = lengths[index] <= SHORT and of_short <= ACROSS * 2 / 3
    tbl.colspecs[index] = {spec[1], not own and math.min(lengths[index], LONG) / LONG or nil}
  end
end

-- A column is as wide as what stands in it, numbers to the right; the template shrinks a table wider than the page.
local function columns(tbl)
  for index, spec in ipairs(tbl.colspecs) do
    local given = spec[1]
    local left = index == 1 or of_words(tbl, index)
    tbl.colspecs[index] = {given ~= "AlignDefault" and given or left and "AlignLeft" or "AlignRight", nil}
  end
  for _, row in ipairs(tbl.head.rows) do
    for _, cell in ipairs(row.cells) do
      if cell.col_span > 1 then cell.alignment = "AlignCenter" end
    end
  end
  if FORMAT == "typst" then share_width(tbl) end
  return tbl
end

-- A long table may break across pages; a short one, like every figure, stays whole.
local function breakable(tbl)
  if FORMAT ~= "typst" or #tbl.bodies == 0 or #tbl.bodies[1].body <= 30 then return nil end
  return {pandoc.RawBlock("typst", "#[#show figure: set block(breakable: true)"), tbl, pandoc.RawBlock("typst", "]")}
end

-- A claim that does not hold, and a cell that failed.
local LOOKS = {
  absent = '#text(fill: rgb("#767676"), size: 9pt)[',
  failed = "#block(stroke: (left: 2pt + red), inset: (left: 8pt))[",
}
local function marked(div)
  for class, look in pairs(LOOKS) do
    if FORMAT == "typst" and div.classes:includes(class) then
      local blocks = pandoc.Blocks {pandoc.RawBlock("typst", look)}
      blocks:extend(div.content)
      blocks:insert(pandoc.RawBlock("typst", "]"))
      return blocks
    end
  end
end

-- Images: those of other hosts become links (the report needs no network), those that are not there their description.
local function exists(src)
  for _, folder in ipairs(PANDOC_STATE.resource_path) do
    local file = io.open(folder .. "/" .. src, "rb")
    if file then file:close() return true end
  end
  local file = io.open(src, "rb")
  if file then file:close() return true end
  return false
end

local function image(img)
  if img.src:match("^data:") then return nil end
  local text = #img.caption > 0 and img.caption or pandoc.Inlines {pandoc.Str(img.src)}
  if img.src:match("^%a+://") then return pandoc.Link(text, img.src) end
  if not exists((img.src:gsub("%%20", " "))) then
    text:insert(1, pandoc.Str("[missing image: "))
    text:insert(pandoc.Str("]"))
    return pandoc.Span(text)
  end
end

local function inline_html(inline)
  if inline.format == "html" and inline.text:match("^<img%f[%s]") then
    return pandoc.utils.blocks_to_inlines(pandoc.read(inline.text, "html").blocks)
  end
end

-- Links within the notebook: Jupyter's anchors keep capitals, pandoc's do not; one that leads nowhere becomes its text.
local function anchors(doc)
  local known = {}
  doc:walk {
    Header = function(h) known[h.identifier:lower()] = h.identifier end,
    Div = function(d) known[d.identifier:lower()] = d.identifier end,
    Span = function(s) known[s.identifier:lower()] = s.identifier end,
  }
  return doc:walk {
    Link = function(link)
      local name = link.target:match("^#(.*)")
      if not name then return nil end
      if not known[name:lower()] then return link.content end
      link.target = "#" .. known[name:lower()]
      return link
    end,
  }
end

-- A number and its percent sign stay on one line.
local function percent(inlines)
  for i = 2, #inlines - 1 do
    local before, after = inlines[i - 1], inlines[i + 1]
    if inlines[i].t == "Space" and before.t == "Str" and before.text:match("%d$") and after.t == "Str" and after.text:match("^%%") then
      inlines[i] = pandoc.Str("\u{a0}")
    end
  end
  return inlines
end

return {{Inlines = percent}, {RawInline = inline_html}, {RawBlock = native}, {Table = columns}, {Div = captioned}, {Table = breakable}, {Div = marked}, {Image = image}, {Pandoc = anchors}}
