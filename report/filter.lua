-- Captions become real figures; HTML tables become pandoc's own, in HTML too if they are lib.plots.table's, whose columns are
-- aligned here.

-- What only a browser plays or opens, by what it is called; on paper its address stands for it.
local PLAYED = {video = "a video", audio = "sound", iframe = "a page", object = "an object", embed = "an object", canvas = "a drawing"}
local function said_instead(name, tag)
  local address = tag:match("[%s\"']src%s*=%s*[\"'](%a+://[^\"']+)")
  local said = pandoc.Inlines {pandoc.Str("[" .. PLAYED[name] .. ", which cannot be printed")}
  if address then said:extend {pandoc.Str(":"), pandoc.Space(), pandoc.Link(address, address)} end
  said:insert(pandoc.Str("]"))
  return pandoc.Div(pandoc.Para(said), {class = "absent"})
end

local function style_of(element) return ";" .. (element.attributes.style or ""):gsub("%s", ""):gsub("#%x%x%x%x%x%x00%f[%X]", "none") end

-- Blocks that stand within a line, with their colours, and without what is not to be seen.
local function within_lines(blocks)
  local done, line = pandoc.Blocks {}, nil
  for _, block in ipairs(blocks) do
    local style, inner = block.t == "Div" and style_of(block) or "", block.t == "Div" and #block.content == 1 and block.content[1]
    if inner and style:match(";display:inline") and (inner.t == "Plain" or inner.t == "Para") then
      local fill = style:match(";background%-color:(#%x+)") or style:match(";background:(#%x+)")
      local piece = pandoc.Inlines {pandoc.Space()} .. inner.content
      if fill then
        piece:insert(1, pandoc.RawInline("typst", '#highlight(fill: rgb("' .. fill .. '"))['))
        piece:insert(pandoc.RawInline("typst", "]"))
      end
      if not line then
        line = pandoc.Plain {}
        done:insert(line)
      end
      done[#done].content:extend(piece)
    elseif not style:match(";display:none") then
      done:insert(block)
      line = nil
    end
  end
  return done
end

-- The end tags of rows and cells that HTML may leave out, and the rows themselves; pandoc needs them.
local function with_ends(text)
  local tables = {}
  return (text:gsub("<(/?)([Tt]%a+)([^>]*)>", function(ending, name, rest)
    name = name:lower()
    if name == "table" and ending == "" then table.insert(tables, {}) return nil end
    local top, cell = tables[#tables], name == "td" or name == "th"
    if not top or not (cell or name == "tr" or name == "thead" or name == "tbody" or name == "tfoot" or name == "table") then return nil end
    if cell and ending == "/" and not top.cell or name == "tr" and ending == "/" and not top.row then return "" end
    local ends = top.cell and not (cell and ending == "/") and "</" .. top.cell .. ">" or ""
    if not cell and top.row and not (name == "tr" and ending == "/") then ends = ends .. "</tr>" end
    if cell and not top.row then ends = "<tr>" end
    top.cell = cell and ending == "" and name or nil
    top.row = cell or name == "tr" and ending == ""
    if name == "table" then table.remove(tables) end
    return ends .. "<" .. ending .. name .. rest .. ">"
  end))
end

local function native(block)
  if block.format ~= "html" then return nil end
  if FORMAT:match("html") and not block.text:match('^%s*<table[^>]*class="dataframe report"') then return nil end
  local said, text = pandoc.Blocks {}, block.text
  for name in pairs(PLAYED) do
    text = text:gsub("<" .. name .. "%f[%W].-</" .. name .. ">", function(tag)
      said:insert(said_instead(name, tag))
      return ""
    end)
  end
  local blocks = pandoc.read(with_ends(text), "html").blocks:walk {Blocks = within_lines}
  for index, inner in ipairs(blocks) do
    if inner.t == "Plain" then blocks[index] = pandoc.Para(inner.content) end -- what follows begins a line
  end
  return blocks .. said
end

local function captioned(div)
  if not div.classes:includes("captioned") then return nil end
  local body, caption = pandoc.Blocks {}, pandoc.Blocks {}
  for _, block in ipairs(div.content) do
    if block.t == "Div" and block.classes:includes("caption") then caption:extend(block.content) else body:insert(block) end
  end
  if FORMAT == "typst" and #body == 1 and body[1].t == "Table" then
    body[1].caption, body[1].identifier = {long = caption}, div.identifier
    return body[1]
  end
  local kind = div.classes:includes("table") and "table" or "figure"
  return pandoc.Figure(body, {long = caption}, pandoc.Attr(div.identifier, {kind}))
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

-- The colours and the weight that a cell's style gives it.
local function coloured(cell)
  local style = style_of(cell)
  local fill = style:match(";background%-color:(#%x+)") or style:match(";background:(#%x+)")
  local ink = style:match(";color:(#%x+)")
  if fill then cell.attributes["typst:fill"] = 'rgb("' .. fill .. '")' end
  if ink then cell.attributes["typst:text:fill"] = 'rgb("' .. ink .. '")' end
  if style:match(";font%-weight:bold") then cell.attributes["typst:text:weight"] = '"bold"' end
end

-- A heading longer than what stands below it takes several lines where the table is wider than the page.
local function break_headings(tbl)
  local across = 0
  for index = 1, #tbl.colspecs do
    local heading = 0
    for _, row in ipairs(tbl.head.rows) do
      local cell = row.cells[index]
      if cell and cell.col_span == 1 then heading = math.max(heading, #pandoc.utils.stringify(cell.contents)) end
    end
    across = across + math.max(heading, longest(tbl, index)) + 4
  end
  if across <= ACROSS then return end
  for _, row in ipairs(tbl.head.rows) do
    for index, cell in ipairs(row.cells) do
      local most, line = math.max(12, longest(tbl, index)), 0
      cell.contents = cell.col_span > 1 and cell.contents or cell.contents:walk {
        Inlines = function(inlines)
          for at, inline in ipairs(inlines) do
            local after = inlines[at + 1] and #pandoc.utils.stringify(inlines[at + 1]) or 0
            local breaks = (inline.t == "Space" or inline.t == "SoftBreak") and line + 1 + after > most
            line = breaks and 0 or line + #pandoc.utils.stringify(inline)
            if breaks then inlines[at] = pandoc.LineBreak() end
          end
          return inlines
        end,
      }
    end
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
  if FORMAT == "typst" then
    share_width(tbl)
    break_headings(tbl)
    for _, body in ipairs(tbl.bodies) do
      for _, row in ipairs(body.body) do
        for _, cell in ipairs(row.cells) do coloured(cell) end
      end
    end
  end
  return tbl
end

-- A long table may break across pages; a short one, like every figure, stays whole.
local function breakable(tbl)
  if FORMAT ~= "typst" or #tbl.bodies == 0 or #tbl.bodies[1].body <= 24 then return nil end
  return {pandoc.RawBlock("typst", "#[#show figure: set block(breakable: true)"), tbl, pandoc.RawBlock("typst", "]")}
end

-- A claim that does not hold, and a cell that failed.
local LOOKS = {
  absent = '#text(fill: rgb("#767676"), size: 9pt)[',
  prompt = '#block(below: 0.4em, sticky: true, text(fill: rgb("#767676"), size: 7.2pt, font: "DejaVu Sans Mono")[',
  failed = "#block(stroke: (left: 2pt + red), inset: (left: 8pt))[",
}
local function marked(div)
  for class, look in pairs(LOOKS) do
    if FORMAT == "typst" and div.classes:includes(class) then
      local blocks = pandoc.Blocks {pandoc.RawBlock("typst", look)}
      blocks:extend(div.content)
      blocks:insert(pandoc.RawBlock("typst", class == "prompt" and "])" or "]"))
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

local function picture_elsewhere(img)
  if not img.src:match("^%a+://") then return nil end
  local name = img.src:gsub("[?#].*", ""):match("([^/]+)/*$")
  return pandoc.Inlines {pandoc.Str("picture: ")} .. (#img.caption > 0 and img.caption or pandoc.Inlines {pandoc.Str(name)})
end

local function linked(link) -- a badge leads where its link does, and says nothing beside words
  local words = pandoc.utils.stringify(link.content:walk {Image = function() return {} end}):match("%S")
  link.content = link.content:walk {
    Image = function(img)
      local elsewhere = picture_elsewhere(img)
      return elsewhere and words and {} or elsewhere
    end,
  }
  return link
end

local function image(img)
  if img.src:match("^data:") then return nil end
  local elsewhere = picture_elsewhere(img)
  if elsewhere then return pandoc.Link(elsewhere, img.src) end
  local text = #img.caption > 0 and img.caption or pandoc.Inlines {pandoc.Str(img.src)}
  if not exists((img.src:gsub("%%20", " "))) then
    text:insert(1, pandoc.Str("[missing image: "))
    text:insert(pandoc.Str("]"))
    return pandoc.Span(text)
  end
end

-- HTML within a line, as the browser shows it: images, line breaks, and what stands between two tags.
local function small(inlines) return pandoc.Span(inlines, {class = "small"}) end
local TAGS = {
  sup = pandoc.Superscript, sub = pandoc.Subscript, b = pandoc.Strong, strong = pandoc.Strong, i = pandoc.Emph, em = pandoc.Emph,
  cite = pandoc.Emph, var = pandoc.Emph, u = pandoc.Underline, ins = pandoc.Underline, s = pandoc.Strikeout,
  del = pandoc.Strikeout, strike = pandoc.Strikeout, small = small, q = function(inlines) return pandoc.Quoted("DoubleQuote", inlines) end,
  code = function(inlines) return pandoc.Code(pandoc.utils.stringify(inlines)) end,
  kbd = function(inlines) return pandoc.Code(pandoc.utils.stringify(inlines)) end,
}

local function inline_html(inlines)
  local done, open = pandoc.Inlines {}, {}
  for _, inline in ipairs(inlines) do
    local text = inline.t == "RawInline" and inline.format == "html" and inline.text or ""
    local ending, name = text:match("^<(/?)(%a%w*)[^>]*>$") -- one tag
    name = name and name:lower()
    if name == "img" then
      done:extend(pandoc.utils.blocks_to_inlines(pandoc.read(text, "html").blocks))
    elseif name == "br" then
      done:insert(pandoc.LineBreak())
    elseif name and (TAGS[name] or name == "a") and ending == "" then
      table.insert(open, {name = name, before = done, text = text})
      done = pandoc.Inlines {}
    elseif name and ending == "/" and #open > 0 and open[#open].name == name then
      local tag = table.remove(open)
      local target = tag.text:match("href%s*=%s*[\"']([^\"']*)")
      local made = name ~= "a" and TAGS[name](done) or target and pandoc.Link(done, target) or pandoc.Span(done)
      done = tag.before
      done:insert(made)
    else
      done:insert(inline)
    end
  end
  while #open > 0 do -- a tag that nothing closes
    local tag = table.remove(open)
    tag.before:extend(done)
    done = tag.before
  end
  return done
end

-- What <details> folds is open on paper, below its summary.
local function summary(block)
  local text = FORMAT == "typst" and block.format == "html" and block.text:match("<summary[^>]*>(.-)</summary>")
  if not text then return nil end
  local blocks = pandoc.Blocks {pandoc.Para {pandoc.Strong(pandoc.utils.blocks_to_inlines(pandoc.read(text, "html").blocks))}}
  local rest = block.text:gsub("<summary[^>]*>.-</summary>", ""):gsub("</?details[^>]*>", "")
  blocks:extend(pandoc.read(rest, "html").blocks)
  return blocks
end

-- LaTeX commands that a formula defines are known to all that follow, as in Jupyter. pandoc puts in what they stand for.
local DEFINITIONS = {
  "\\[renwpovid]*command%*?%s*%b{}%s*%[%d%]%s*%b{}", "\\[renwpovid]*command%*?%s*%b{}%s*%b{}",
  "\\[renwpovid]*command%*?%s*\\%a+%s*%[%d%]%s*%b{}", "\\[renwpovid]*command%*?%s*\\%a+%s*%b{}",
  "\\def%s*\\%a+%s*%b{}", "\\DeclareMathOperator%*?%s*%b{}%s*%b{}", "\\DeclareMathOperator%*?%s*\\%a+%s*%b{}",
}
local known = [[
\newcommand{\TeX}{\text{TeX}} \newcommand{\LaTeX}{\text{LaTeX}} \newcommand{\nonumber}{} \newcommand{\notag}{}
\newcommand{\textcolor}[2]{#2} \newcommand{\bbox}[2][]{#2} \newcommand{\cfrac}[2]{\dfrac{#1}{#2}} \newcommand{\hbox}[1]{\text{#1}}
\newcommand{\mathbbm}[1]{\mathbb{#1}} \newcommand{\space}{\ } \newcommand{\hfill}{\quad} \newcommand{\eqref}[1]{(\text{#1})}
]] -- and those of Jupyter's that pandoc lacks
local FONTS = {rm = "mathrm", bf = "mathbf", it = "mathit", sf = "mathsf", tt = "mathtt", cal = "mathcal"}
local function mathematics(math)
  for _, pattern in ipairs(DEFINITIONS) do
    math.text = math.text:gsub(pattern, function(found)
      known = known .. found .. "\n"
      return ""
    end)
  end
  if not math.text:match("%S") then return {} end
  math.text = math.text:gsub("{%s*\\(%l%l%l?)%f[%A]%s*([^{}]*)}", function(font, text)
    return FONTS[font] and "{\\" .. FONTS[font] .. "{" .. text .. "}}"
  end)
  if not math.text:match("\\begin") and math.text:gsub("%b{}", ""):match("\\\\") then -- lines of no environment
    math.text = "\\begin{gathered}" .. math.text .. "\\end{gathered}"
  end
  local uses = false
  for name in math.text:gmatch("\\(%a+)") do uses = uses or known:match("\\" .. name .. "%f[%A]") end
  if uses then
    local read = pandoc.read(known .. "\n$$" .. math.text .. "$$", "markdown+latex_macros")
    read:walk {Math = function(inner) math.text = inner.text end}
  end
  return math
end

-- What a formula or an image says to those who cannot see it, which pandoc does not hand to Typst: a formula its LaTeX.
local function quoted(text) return '"' .. text:gsub("%s+", " "):gsub("\\", "\\\\"):gsub('"', '\\"') .. '"' end

local function said(math)
  if FORMAT ~= "typst" then return nil end
  local set = pandoc.write(pandoc.Pandoc {pandoc.Plain {math}}, "typst"):gsub("%s+$", "")
  if set:sub(1, 1) ~= "$" then return pandoc.Code(math.text) end -- beyond pandoc
  return pandoc.RawInline("typst", "#{set math.equation(alt: " .. quoted(math.text) .. "); " .. set .. "}")
end

local function file_of(src)
  local mime, content = pandoc.mediabag.fetch(src)
  local name = pandoc.utils.sha1(content) .. "." .. (src:match("^[^:]+%.(%a+)$") or mime:match("/(%a+)"))
  local file = assert(io.open(name, "wb"))
  file:write(content)
  file:close()
  return name
end

local function described(img)
  if FORMAT ~= "typst" then return nil end
  local width = img.attributes.width and img.attributes.width:match("^([%d.]+)px$")
  local size = width and ", width: " .. width / 96 .. "in" or ""
  local alt = img.attributes.alt or pandoc.utils.stringify(img.caption)
  return pandoc.RawInline("typst", "#box(image(" .. quoted(file_of(img.src)) .. size .. ", alt: " .. quoted(alt ~= "" and alt or "a picture") .. "))")
end

-- Typst breaks lines of code at blanks alone; these may break anywhere after so many signs.
local WORD = 90
local function breaking(block)
  if FORMAT ~= "typst" then return nil end
  block.text = block.text:gsub("%S+", function(word)
    local length = utf8.len(word)
    if not length or length <= WORD then return nil end
    local parts = {}
    for at = 1, length, 20 do
      local last = math.min(at + 20, length + 1)
      table.insert(parts, word:sub(utf8.offset(word, at), utf8.offset(word, last) - 1))
    end
    return table.concat(parts, "\u{200b}")
  end)
  return block
end

-- Links within the notebook: Jupyter's anchors keep capitals, pandoc's do not; one that leads nowhere becomes its text.
local function anchors(doc)
  local known = {}
  doc:walk {
    Header = function(h)
      local name = h.identifier:lower()
      known[name], known[name:match("^a%d+%-(.*)") or name] = h.identifier, h.identifier -- the appendix's with or without A1
    end,
    Div = function(d) known[d.identifier:lower()] = d.identifier end,
    Span = function(s) known[s.identifier:lower()] = s.identifier end,
    Figure = function(f) known[f.identifier:lower()] = f.identifier end,
    Table = function(t) known[t.identifier:lower()] = t.identifier end,
  }
  return doc:walk {
    Link = function(link)
      if link.target == "" then return link.content end
      local name = link.target:match("^#(.*)")
      if not name then return nil end
      if not known[name:lower()] then return link.content end
      link.target = "#" .. known[name:lower()]
      return link
    end,
  }
end

-- "Figure 3", "Table A2", "section 4.2" and "Ioffe & Szegedy (2015)" lead there; in HTML the caption, title or reference shows
-- where one hovers.
local targets = {} -- "figure 3" -> {identifier, what shows}
local cited = {} -- {words of the authors, year, identifier, what shows}

local function collect(doc)
  local counts, references = {0, 0, 0}, false
  for _, block in ipairs(doc.blocks) do
    if block.t == "Header" then
      references = block.level == 1 and pandoc.utils.stringify(block) == "References"
      if doc.meta.numbersections and not block.classes:includes("unnumbered") and block.level <= 3 then
        counts[block.level] = counts[block.level] + 1
        for level = block.level + 1, 3 do counts[level] = 0 end
        local number = table.concat(counts, ".", 1, block.level)
        targets["section " .. number] = {block.identifier, pandoc.utils.stringify(block)}
      end
    elseif references and block.t == "BulletList" then
      for index, item in ipairs(block.content) do
        local text = pandoc.utils.stringify(item)
        local authors, year = text:match("^(.-) %((%d%d%d%d)%)")
        if authors then
          local names = {}
          for name in (authors:gsub("%s*et al%.?", "")):gmatch("([^,&]+),%s*[%u][%u%s.%-]*") do
            table.insert(names, (name:gsub("^%s+", "")))
          end
          local first = names[1] or authors
          local several = #names > 2 or authors:match("et al")
          local words = several and first .. " et al." or #names == 2 and first .. " & " .. names[2] or first
          local parts = {}
          for word in words:gmatch("%S+") do table.insert(parts, word) end
          local name = "reference-" .. index
          table.insert(cited, {parts, year, name, text})
          block.content[index] = pandoc.Blocks {pandoc.Div(item, {id = name})}
        end
      end
    end
  end
  local function named(element)
    local shown = pandoc.utils.stringify(element.caption.long):gsub("%s+$", "")
    if element.identifier ~= "" then targets[element.identifier:gsub("-", " ")] = {element.identifier, shown} end
  end
  doc:walk {Figure = named, Table = named}
  return doc
end

local function word(inlines, at) return inlines[at] and inlines[at].t == "Str" and inlines[at].text end
local function gap(inlines, at) return inlines[at] and (inlines[at].t == "Space" or inlines[at].t == "SoftBreak") end

-- The end of a citation that begins at a place, its reference, and what stands before and after it there.
local function citation(inlines, at)
  local before = word(inlines, at):match("^[(%[]*")
  for _, reference in ipairs(cited) do
    local words, found = reference[1], at
    for index, wanted in ipairs(words) do
      local own = word(inlines, found)
      if index == 1 and own then own = own:sub(#before + 1) end
      if index == #words and own then own = own:gsub("[,’']$", "") end
      if own ~= wanted or not gap(inlines, found + 1) then found = nil break end
      found = found + 2
    end
    local year, after = (found and word(inlines, found) or ""):match("^(%(?%d%d%d%d)(.*)$")
    if year and year:match("%d+") == reference[2] then
      if year:sub(1, 1) == "(" and after:sub(1, 1) == ")" then after = after:sub(2) end
      return found, reference, before, after
    end
  end
end

local function leading(inlines)
  local done, at = pandoc.Inlines {}, 1
  while at <= #inlines do
    local text, target, last, after = word(inlines, at), nil, nil, nil
    local before, kind = (text or ""):match("^([(%[]*)(%a+)$")
    if kind and gap(inlines, at + 1) and word(inlines, at + 2) then
      local number, rest = word(inlines, at + 2):match("^(A?%d[%d.]*)(.*)$")
      if number and number:match("%.$") then number, rest = number:sub(1, -2), "." .. rest end
      target = number and targets[kind:lower() .. " " .. number:lower()] or number and targets[kind:lower() .. " " .. number]
      last, after = at + 2, rest
    end
    if text and not target then
      local found, reference, opening, rest = citation(inlines, at)
      if found then
        target, last, before, after = {reference[3], reference[4]}, found, opening, rest
      end
    end
    if target then
      local content = pandoc.Inlines {}
      for i = at, last do content:insert(inlines[i]:clone()) end
      content[1].text = content[1].text:sub(#before + 1)
      content[#content].text = content[#content].text:sub(1, #content[#content].text - #after)
      if before ~= "" then done:insert(pandoc.Str(before)) end
      done:insert(pandoc.Link(content, "#" .. target[1], FORMAT == "typst" and "" or target[2]))
      if after ~= "" then done:insert(pandoc.Str(after)) end
      at = last + 1
    else
      done:insert(inlines[at])
      at = at + 1
    end
  end
  return done
end

local function crossed(doc)
  return doc:walk {
    traverse = "topdown",
    Header = function(header) return header, false end,
    Link = function(link) return link, false end,
    Strong = function(label) return label, false end, -- as that of a caption
    Div = function(div) if div.identifier:match("^reference%-") then return div, false end end,
    Inlines = leading,
  }
end

-- Levels of headings that leave none out, as PDF/UA asks: those below a heading are one lower, whatever number they have.
local function levels(doc)
  if FORMAT ~= "typst" then return nil end
  local above = {}
  return doc:walk {
    Header = function(header)
      while #above > 0 and above[#above] >= header.level do table.remove(above) end
      table.insert(above, header.level)
      header.level = #above
      return header
    end,
  }
end

-- The name of the file's window is plain text.
local function plain(meta)
  if meta.pagetitle then meta.pagetitle = pandoc.utils.stringify(meta.pagetitle) end
  return meta
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

return {{Inlines = inline_html}, {Inlines = percent}, {Math = mathematics}, {CodeBlock = breaking}, {RawBlock = summary}, {RawBlock = native}, {Table = columns}, {Div = captioned}, {Table = breakable}, {Div = marked}, {Link = linked}, {Image = image}, {Image = described, Math = said}, {Pandoc = collect}, {Pandoc = crossed}, {Pandoc = anchors}, {Pandoc = levels, Meta = plain}}
